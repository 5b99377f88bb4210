package firstboot

import (
	"context"
	"fmt"
	"strings"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/kubelet"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
)

const (
	// kubeletRestartDue is there from before the kubelet's kubeconfig changes
	// until the kubelet runs with it. It is gone after a reboot, as its reason is.
	kubeletRestartDue = "/run/kbuild/kubelet-restart-due"
)

// stepKubeletFinalize points the kubelet's kubeconfig to the certificate that
// the kubelet itself rotates, instead of the first one, which expires after a
// year, and restarts the kubelet with it.
func stepKubeletFinalize() converge.Step {
	return converge.Step{
		Name:  "kubelet-finalize",
		Limit: 5 * time.Minute,
		Done: func(ctx context.Context, m *node.Machine) (bool, error) {
			if !kubelet.Rotates(m.Node) {
				return true, nil
			}
			pem := kubelet.CurrentCertificate(m.Node)
			// It is a link that kubelets write as an absolute one, which Root does
			// not follow: that the link is there must do.
			if _, err := m.Host.Root.Lstat(strings.TrimPrefix(pem, "/")); err != nil {
				return false, outcome.Retry{After: 200 * time.Millisecond, Why: fmt.Sprintf("the kubelet has not written %s yet", pem)}
			}
			_, user, err := kubelet.ReadKubeconfig(m)
			if err != nil {
				return false, err
			}
			return kubelet.Uses(user, pem) && !m.Host.Exists(kubeletRestartDue), nil
		},
		Do: func(ctx context.Context, m *node.Machine) error {
			pem := kubelet.CurrentCertificate(m.Node)
			conf, user, err := kubelet.ReadKubeconfig(m)
			if err != nil {
				return err
			}
			if !kubelet.Uses(user, pem) {
				user.ClientCertificate, user.ClientKey = pem, pem
				user.ClientCertificateData, user.ClientKeyData = nil, nil
				b, err := clientcmd.Write(*conf)
				if err != nil {
					return fmt.Errorf("cannot write %s: %w", node.KubeletKubeconfig, err)
				}
				if err := m.Host.WriteFile(kubeletRestartDue, nil, 0o600); err != nil {
					return err
				}
				if err := m.Host.WriteFile(node.KubeletKubeconfig, b, 0o600); err != nil {
					return err
				}
			}
			if m.Host.Exists(kubeletRestartDue) {
				if err := kubelet.Restart(ctx, m); err != nil {
					return err
				}
			}
			return m.Host.Remove(kubeletRestartDue)
		},
	}
}
