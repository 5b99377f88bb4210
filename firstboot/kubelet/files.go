package kubelet

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
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
	rel, files := m.Release(), map[string][]byte{}
	if files[ConfigFile], err = config.MarshalKubelet(m.Node, rel); err != nil {
		return nil, "", err
	}
	if files[ConfigFile], err = patched(m, files[ConfigFile]); err != nil {
		return nil, "", err
	}
	if rel.Has(images.FactInstanceConfig) {
		if files[InstanceFile], err = instanceConfig(m, rel); err != nil {
			return nil, "", err
		}
		if files[ConfigFile], err = applyInstanceConfig(files[ConfigFile], files[InstanceFile]); err != nil {
			return nil, "", fmt.Errorf("cannot apply %s: %w; correct it, or remove it to have it made", InstanceFile, err)
		}
	}
	files[FlagsFile] = fmt.Appendf(nil, "KUBELET_KUBEADM_ARGS=%q\n", strings.Join(arguments(m.Node, rel), " "))
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(h, "%s %d\n%s", name, len(files[name]), files[name])
	}
	return files, hex.EncodeToString(h.Sum(nil)), nil
}

// CRISocket is the address of the node's container runtime, as the version of rel
// wants it written.
func CRISocket(n *config.Node, rel images.Release) string {
	const scheme = "unix://"
	socket := n.Init.NodeRegistration.CRISocket
	if rel.Has(images.FactCRISocketURL) && !strings.HasPrefix(socket, scheme) {
		return scheme + socket
	}
	return socket
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
		args.Set("container-runtime-endpoint", CRISocket(n, rel))
	}
	if rel.Has(images.FactPauseFlag) {
		args.Set("pod-infra-container-image", rel.PauseImage(n.Cluster.ImageList()))
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
	if !rel.Has(images.FactArgsAppended) {
		maps.Copy(args, reg.KubeletExtraArgs)
		return args.Lines()
	}
	for name := range reg.KubeletExtraArgs {
		delete(args, name)
	}
	return append(args.Lines(), reg.KubeletExtraArgs.Lines()...)
}

// instanceConfig is the content of InstanceFile: what is there, which
// administrators may have added to, or else what kubeadm begins it with.
func instanceConfig(m *node.Machine, rel images.Release) ([]byte, error) {
	b, err := m.Host.ReadFile(InstanceFile)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Appendf(nil, "containerRuntimeEndpoint: %q\n", CRISocket(m.Node, rel)), nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", InstanceFile, err)
	}
	return b, nil
}
