package metadata

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/kbuild/kbuild/firstboot/host"
)

// ovfEnv is the file on Azure's provisioning disc that holds customData.
const ovfEnv = "ovf-env.xml"

// azureDisc reads customData from the provisioning disc, which lies in the
// machine's DVD drive on its first boots. What else is in a drive is none of
// ours.
func azureDisc(_ context.Context, h *host.Host) (Found, error) {
	drives, err := fs.Glob(h.Root.FS(), "dev/sr*")
	if err != nil {
		return Found{}, err
	}
	for _, dev := range drives {
		f, err := open(h, dev)
		if err != nil {
			continue // an empty drive
		}
		defer f.Close()
		found, err := readAzureDisc(f)
		if errors.Is(err, errNone) || errors.Is(err, errFormat) {
			continue
		}
		if err != nil {
			err = fmt.Errorf("provisioning disc in /%s: %w", dev, err)
		}
		return found, err
	}
	return Found{}, errNone
}

func readAzureDisc(r io.ReaderAt) (Found, error) {
	files, err := readVolume(r, ovfEnv)
	if err != nil {
		return Found{}, err
	}
	b, ok := files[ovfEnv]
	if !ok {
		return Found{}, errNone
	}
	data, name, err := parseOVF(b)
	if err != nil {
		return Found{}, fmt.Errorf("file %s: %w", ovfEnv, err)
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return Found{}, errNone
	}
	f := given("Azure custom-data", data)
	f.Hostname = name
	return f, nil
}

// parseOVF takes customData, decoded, and the host name from an OVF
// environment (DSP0243) with Azure's provisioning section.
func parseOVF(b []byte) (data []byte, hostname string, err error) {
	var env struct {
		XMLName xml.Name `xml:"http://schemas.dmtf.org/ovf/environment/1 Environment"`
		Section *struct {
			Linux *struct {
				HostName   string `xml:"http://schemas.microsoft.com/windowsazure HostName"`
				CustomData string `xml:"http://schemas.microsoft.com/windowsazure CustomData"`
			} `xml:"http://schemas.microsoft.com/windowsazure LinuxProvisioningConfigurationSet"`
		} `xml:"http://schemas.microsoft.com/windowsazure ProvisioningSection"`
	}
	d := xml.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&env); err != nil {
		return nil, "", fmt.Errorf("it is not the XML that Azure writes: %w", err)
	}
	if env.Section == nil || env.Section.Linux == nil {
		return nil, "", errors.New("it holds no LinuxProvisioningConfigurationSet: make the machine with a Linux profile")
	}
	data, err = unbase64(env.Section.Linux.CustomData)
	if err != nil {
		return nil, "", fmt.Errorf("CustomData: %w", err)
	}
	return data, env.Section.Linux.HostName, nil
}
