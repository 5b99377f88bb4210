package kubelet

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/images"
)

const (
	Dir          = "/var/lib/kubelet"
	ConfigFile   = Dir + "/config.yaml"
	InstanceFile = Dir + "/instance-config.yaml"
	FlagsFile    = Dir + "/kubeadm-flags.env"
	// RunsWithFile holds the digest of the files above that the running
	// kubelet was started with. It is gone after a reboot, as the kubelet is.
	RunsWithFile = "/run/kbuild/kubelet-runs-with"
)

// Files are what this image wants the kubelet to run with.
func Files(m *node.Machine) (files map[string][]byte, digest string, err error) {
	n, files := *m.Node, map[string][]byte{}
	socket := n.Init.NodeRegistration.CRISocket
	if m.Baked.Release.Has(images.FactInstanceConfig) {
		n.Kubelet = maps.Clone(n.Kubelet)
		n.Kubelet["containerRuntimeEndpoint"] = socket
		files[InstanceFile] = fmt.Appendf(nil, "containerRuntimeEndpoint: %q\n", socket)
	}
	if files[ConfigFile], err = config.MarshalKubelet(&n, m.Baked.Release); err != nil {
		return nil, "", err
	}
	if files[ConfigFile], err = patched(m, files[ConfigFile], files[InstanceFile]); err != nil {
		return nil, "", err
	}
	files[FlagsFile] = fmt.Appendf(nil, "KUBELET_KUBEADM_ARGS=%q\n", strings.Join(arguments(&n, m.Baked.Release), " "))
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(h, "%s %d\n%s", name, len(files[name]), files[name])
	}
	return files, hex.EncodeToString(h.Sum(nil)), nil
}

// arguments are the flags that kubeadm gives a kubelet beside its
// configuration. The host's name is the node's (see stepHostname), so
// --hostname-override is never needed.
func arguments(n *config.Node, rel images.Release) []string {
	reg := n.Init.NodeRegistration
	args := config.Args{}
	if rel.Has(images.FactRemoteRuntimeFlag) {
		args.Set("container-runtime", "remote")
	}
	if !rel.Has(images.FactInstanceConfig) {
		args.Set("container-runtime-endpoint", reg.CRISocket)
	}
	var taints []string
	for _, t := range reg.Taints {
		taints = append(taints, t.ToString())
	}
	if len(taints) > 0 && n.Role == config.RoleWorker {
		// Those of a control plane are set by mark-control-plane, when its
		// API server answers.
		args.Set("register-with-taints", strings.Join(taints, ","))
	}
	maps.Copy(args, reg.KubeletExtraArgs)
	return args.Lines()
}
