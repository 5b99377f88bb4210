package metadata

import (
	"context"
	"errors"

	"github.com/kbuild/kbuild/firstboot/host"
)

// cloud is a platform with a metadata service that is asked over HTTP. Where a
// value stands is a path below the service's base; with "#a.b" behind it, it is
// member b of member a of the JSON object at that path.
type cloud struct {
	name  string
	give  string // as in source
	limit string
	marks []mark
	// bases are where the service may be, the likeliest first; LINK stands for
	// each network interface that is up.
	bases  []string
	header map[string]string // sent with each request
	proof  string            // a header that answers bear like requests, or this is another service
	token  bool              // each request needs a token (IMDSv2)
	// instanceID is something of the machine that is always there: a service
	// that does not have it does not know the machine yet.
	instanceID string
	hostname   string // empty: taken from nowhere
	userData   string
	encoding   string // of userData, or where it stands; empty is none
	mends      bool   // "not found" means "not yet", as long as the machine is being made
	// then is where to look if the service has no user-data.
	then func(ctx context.Context, h *host.Host) (Found, error)
}

// The address at which nearly all of them are asked (RFC 3927), and its like in
// IPv6.
const (
	linkLocal  = "http://169.254.169.254/"
	linkLocal6 = "http://[fe80::a9fe:a9fe%25LINK]/"
)

// clouds are the platforms. Where a row comes from, and what is peculiar:
//
//   - EC2: "Use the Instance Metadata Service to access instance metadata"; the
//     token's answer lives one hop, which is enough for a process of the machine
//     itself; 403 for the token says that the service is turned off. Its Xen
//     machines show themselves by Xen's UUID only; the firmware's, which begins
//     so too, does by chance on one machine of anyone's in 4096.
//   - GCE: "View and query VM metadata"; a value named user-data-encoding is
//     cloud-init's way to carry bytes.
//   - Azure: "Azure Instance Metadata Service"; userData is always base64; the
//     service answers 404 or 410 while it is being set up.
//   - DigitalOcean: "Droplet Metadata".
//   - Hetzner: "Server Metadata"; it takes only text, so people give base64.
//   - OpenStack: nova, "Metadata service"; the IPv6 address is neutron's.
//
// Marks are what the vendors document and cloud-init's ds-identify goes by.
func clouds() []cloud {
	return []cloud{
		{
			name: "EC2 metadata service", give: "`aws ec2 run-instances --user-data file://FILE` (IMDSv2, over IPv4 or IPv6)", limit: "16 KiB before base64",
			marks:      []mark{{dmi + "sys_vendor", "Amazon EC2"}, {"/sys/hypervisor/uuid", "ec2"}},
			bases:      []string{linkLocal, "http://[fd00:ec2::254]/"},
			token:      true,
			instanceID: "latest/meta-data/instance-id", hostname: "latest/meta-data/local-hostname", userData: "latest/user-data",
		},
		{
			name: "GCE metadata service", give: "`gcloud compute instances create --metadata-from-file user-data=FILE`; metadata `user-data-encoding=base64` says that it is base64", limit: "256 KiB",
			marks:      []mark{{dmi + "product_name", "Google Compute Engine"}, {dmi + "product_serial", "GoogleCloud-"}},
			bases:      []string{linkLocal + "computeMetadata/v1/"},
			header:     map[string]string{"Metadata-Flavor": "Google"},
			proof:      "Metadata-Flavor",
			instanceID: "instance/id", hostname: "instance/hostname", userData: "instance/attributes/user-data", encoding: "instance/attributes/user-data-encoding",
		},
		{
			name: "Azure metadata service", give: "`az vm create --user-data FILE`, or `--custom-data FILE`, which is read from the provisioning disc", limit: "64 KiB before base64",
			marks:      []mark{{dmi + "chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77"}},
			bases:      []string{linkLocal + "metadata/"},
			header:     map[string]string{"Metadata": "true"},
			instanceID: azureCompute + "#vmId", hostname: azureCompute + "#osProfile.computerName", userData: azureCompute + "#userData", encoding: "base64",
			mends: true,
			then:  azureDisc,
		},
		{
			name: "DigitalOcean metadata service", give: "`doctl compute droplet create --user-data-file FILE`", limit: "64 KiB",
			marks:      []mark{{dmi + "sys_vendor", "DigitalOcean"}},
			bases:      []string{linkLocal + "metadata/"},
			instanceID: "v1.json#droplet_id", hostname: "v1.json#hostname", userData: "v1.json#user_data",
		},
		{
			name: "Hetzner metadata service", give: "`hcloud server create --user-data-from-file FILE`; base64 is decoded", limit: "32 KiB",
			marks:      []mark{{dmi + "sys_vendor", "Hetzner"}},
			bases:      []string{linkLocal + "hetzner/v1/", linkLocal6 + "hetzner/v1/"},
			instanceID: "metadata/instance-id", hostname: "metadata/hostname", userData: "userdata", encoding: "base64?",
		},
		{
			name: "OpenStack metadata service", give: "`openstack server create --user-data FILE`, without a config drive", limit: "65,535 bytes after base64",
			marks: []mark{
				{dmi + "product_name", "OpenStack Nova"}, {dmi + "product_name", "OpenStack Compute"},
				{dmi + "chassis_asset_tag", "OpenStack Nova"}, {dmi + "chassis_asset_tag", "OpenStack Compute"},
				{dmi + "chassis_asset_tag", "OpenTelekomCloud"}, {dmi + "chassis_asset_tag", "HUAWEICLOUD"},
				{dmi + "chassis_asset_tag", "SAP CCloud VM"}, {dmi + "chassis_asset_tag", "Samsung Cloud Platform"},
			},
			bases:      []string{linkLocal + "openstack/", linkLocal6 + "openstack/"},
			instanceID: "latest/meta_data.json#uuid", hostname: "latest/meta_data.json#hostname", userData: "latest/user_data",
		},
	}
}

const azureCompute = "instance/compute?api-version=2021-01-01&format=json"

// find asks the service, if the machine is on this cloud.
func (c cloud) find(ctx context.Context, h *host.Host) (Found, error) {
	if !on(h, c.marks) {
		return Found{}, errNone
	}
	f, err := c.ask(ctx, h)
	if errors.Is(err, errNone) && c.then != nil {
		return c.then(ctx, h)
	}
	return f, err
}

// ask asks at each base until one answers.
func (c cloud) ask(ctx context.Context, h *host.Host) (Found, error) {
	var first error
	for _, base := range bases(c.bases, h) {
		s := &session{cloud: c, client: h.HTTP, base: base, seen: map[string]*answer{}}
		f, err := s.read(ctx)
		if err == nil || errors.Is(err, errNone) {
			return f, err
		}
		if s.answered || first == nil {
			first = err
		}
		if s.answered {
			break
		}
	}
	return Found{}, first
}
