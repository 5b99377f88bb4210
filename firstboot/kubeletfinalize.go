package firstboot

import (
	"context"
	"fmt"
	"path"
	"strings"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/outcome"
)

const (
	kubeletKubeconfig = "/etc/kubernetes/kubelet.conf"
	kubeletPKI        = "/var/lib/kubelet/pki"
	kubeletUnit       = "kubelet.service"
	// kubeletRestartDue is there from before the kubelet's kubeconfig changes
	// until the kubelet runs with it. It is gone after a reboot, as its reason is.
	kubeletRestartDue = "/run/kbuild/kubelet-restart-due"
)

// stepKubeletFinalize points the kubelet's kubeconfig to the certificate that
// the kubelet itself rotates, instead of the first one, which expires after a
// year, and restarts the kubelet with it.
func stepKubeletFinalize() Step {
	return Step{
		Name:  "kubelet-finalize",
		Needs: []string{"kubelet-start"},
		Limit: 5 * time.Minute,
		Done: func(ctx context.Context, r *Run) (bool, error) {
			if !rotates(r.Node) {
				return true, nil
			}
			pem := rotatedCertificate(r.Node)
			// It is a link that kubelets write as an absolute one, which Root does
			// not follow: that the link is there must do.
			if _, err := r.Host.Root.Lstat(strings.TrimPrefix(pem, "/")); err != nil {
				return false, outcome.Retry{After: 200 * time.Millisecond, Why: fmt.Sprintf("the kubelet has not written %s yet", pem)}
			}
			_, user, err := readKubeletConf(r)
			if err != nil {
				return false, err
			}
			return uses(user, pem) && !r.Host.Exists(kubeletRestartDue), nil
		},
		Do: func(ctx context.Context, r *Run) error {
			pem := rotatedCertificate(r.Node)
			conf, user, err := readKubeletConf(r)
			if err != nil {
				return err
			}
			if !uses(user, pem) {
				user.ClientCertificate, user.ClientKey = pem, pem
				user.ClientCertificateData, user.ClientKeyData = nil, nil
				b, err := clientcmd.Write(*conf)
				if err != nil {
					return fmt.Errorf("cannot write %s: %w", kubeletKubeconfig, err)
				}
				if err := r.Host.WriteFile(kubeletRestartDue, nil, 0o600); err != nil {
					return err
				}
				if err := r.Host.WriteFile(kubeletKubeconfig, b, 0o600); err != nil {
					return err
				}
			}
			if r.Host.Exists(kubeletRestartDue) {
				if err := restartKubelet(ctx, r); err != nil {
					return err
				}
			}
			return r.Host.Remove(kubeletRestartDue)
		},
	}
}

// rotates says whether the kubelet rotates its client certificate.
func rotates(n *config.Node) bool {
	if v, ok := n.Init.NodeRegistration.KubeletExtraArgs["rotate-certificates"]; ok {
		return v != "false"
	}
	on, _ := n.Kubelet["rotateCertificates"].(bool)
	return on
}

// rotatedCertificate is the file that always holds the kubelet's current
// client certificate and key.
func rotatedCertificate(n *config.Node) string {
	dir := kubeletPKI
	if d := n.Init.NodeRegistration.KubeletExtraArgs["cert-dir"]; d != "" {
		dir = d
	}
	return path.Join(dir, "kubelet-client-current.pem")
}

// readKubeletConf reads the kubelet's kubeconfig and the user in it who is
// this node.
func readKubeletConf(r *Run) (*clientcmdapi.Config, *clientcmdapi.AuthInfo, error) {
	b, err := r.Host.ReadFile(kubeletKubeconfig)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read the kubelet's kubeconfig: %w", err)
	}
	conf, err := clientcmd.Load(b)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read %s: %w", kubeletKubeconfig, err)
	}
	name := "system:node:" + r.Node.Init.NodeRegistration.Name
	if conf.AuthInfos[name] == nil {
		return nil, nil, fmt.Errorf("cannot use %s: it has no user %q; remove the file, and the next boot makes it again", kubeletKubeconfig, name)
	}
	return conf, conf.AuthInfos[name], nil
}

func uses(u *clientcmdapi.AuthInfo, pem string) bool {
	return u.ClientCertificate == pem && u.ClientKey == pem && len(u.ClientCertificateData) == 0 && len(u.ClientKeyData) == 0
}
