package firstboot

import (
	"context"
	"errors"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/pki"
	"github.com/kbuild/kbuild/images"
	"github.com/kbuild/kbuild/templates"
)

// flannelCNIConf is read by the container runtime. The node itself writes it:
// it is Ready without waiting for flannel's pod to do that.
const flannelCNIConf = "/etc/cni/net.d/10-flannel.conflist"

// stepAddon installs what every cluster needs (the pod network that is baked,
// kube-proxy, CoreDNS) and the manifests that are baked.
func stepAddon() converge.Step {
	return converge.Step{
		Name: "addon",
		Done: func(ctx context.Context, m *node.Machine) (bool, error) {
			if m.Baked.CNI == "flannel" && !hasCNIConf(m) {
				return false, nil
			}
			return partsApplied(ctx, m, allAddonParts)
		},
		Do: func(ctx context.Context, m *node.Machine) error {
			if err := writeCNIConf(m); err != nil {
				return err
			}
			c, addons, manifests, err := adminAddons(m)
			if err != nil {
				return err
			}
			return cluster.RetryIfTemporary(errors.Join(cluster.ApplyMissing(ctx, c, m.Host.Log, addons), cluster.ApplyInOrder(ctx, c, m.Host.Log, manifests)))
		},
	}
}

// adminAddons are what the administrator applies: the add-ons side by side, the
// baked manifests in their order.
func adminAddons(m *node.Machine) (c kubernetes.Interface, addons, manifests []cluster.Part, err error) {
	c, cfg, err := m.AsAdmin()
	if err != nil {
		return nil, nil, nil, err
	}
	if addons, err = addonParts(m, c); err != nil {
		return nil, nil, nil, err
	}
	manifests, err = manifestParts(m, cfg)
	return c, addons, manifests, err
}

// writeCNIConf writes what the container runtime must know of the baked pod
// network.
func writeCNIConf(m *node.Machine) error {
	if m.Baked.CNI != "flannel" {
		return nil
	}
	return m.Host.WriteFile(flannelCNIConf, []byte(templates.FlannelCNIConf()), 0o644)
}

func hasCNIConf(m *node.Machine) bool {
	b, err := m.Host.ReadFile(flannelCNIConf)
	return err == nil && string(b) == templates.FlannelCNIConf()
}

func allAddonParts(m *node.Machine, c kubernetes.Interface) ([]cluster.Part, error) {
	addons, err := addonParts(m, c)
	if err != nil {
		return nil, err
	}
	manifests, err := manifestParts(m, &rest.Config{})
	return append(addons, manifests...), err
}

// addonParts are the add-ons of this image and configuration.
func addonParts(m *node.Machine, c kubernetes.Interface) ([]cluster.Part, error) {
	params, err := addonParams(m)
	if err != nil {
		return nil, err
	}
	var parts []cluster.Part
	for _, a := range []templates.Addon{templates.Flannel, templates.KubeProxy, templates.CoreDNS} {
		if !wantsAddon(m, a) {
			continue
		}
		text, err := a.Render(params)
		if err != nil {
			return nil, err
		}
		objs, err := cluster.Typed(string(a)+".yaml", text)
		if err != nil {
			return nil, err
		}
		for _, o := range objs {
			if cm, ok := o.(*corev1.ConfigMap); ok && a == templates.KubeProxy {
				signGenerated(cm, !userSupplied(m.Node, "kubeProxy"))
			}
		}
		wants := any(string(text))
		if changed, err := patchAddon(m, a, objs); err != nil {
			return nil, err
		} else if changed {
			wants = objs
		}
		parts = append(parts, cluster.Part{Name: "addon." + string(a), Wants: wants, Objects: objs, Apply: func(ctx context.Context, before cluster.Before) ([]string, error) {
			var err error
			switch {
			case a == templates.CoreDNS:
				objs, err = respectDNS(ctx, m, c, before, objs)
			case a == templates.KubeProxy && before == nil:
				objs, err = respectSupplied(ctx, c, objs)
			}
			if err != nil {
				return nil, err
			}
			return reviseAddon(ctx, c, before, objs)
		}})
	}
	return parts, nil
}

// patchAddon applies the user's patches for the workload of an add-on to its
// objects, and says whether there are any.
func patchAddon(m *node.Machine, a templates.Addon, objs []runtime.Object) (changed bool, err error) {
	p, err := patches(m)
	if err != nil {
		return false, err
	}
	for i, obj := range objs {
		switch o := obj.(type) {
		case *appsv1.Deployment:
			if a == templates.CoreDNS {
				objs[i], err = templates.Patched(p, templates.CoreDNSDeployment, o)
			}
		case *appsv1.DaemonSet:
			if a == templates.KubeProxy {
				objs[i], err = templates.Patched(p, templates.KubeProxyDaemonSet, o)
			}
		}
		if err != nil {
			return false, err
		}
		changed = changed || objs[i] != obj
	}
	return changed, nil
}

// wantsAddon says whether this image and configuration have the add-on.
func wantsAddon(m *node.Machine, a templates.Addon) bool {
	if a == templates.Flannel {
		return m.Baked.CNI == "flannel"
	}
	return !a.DisabledIn(m.Node.Cluster) && !m.Node.Skips("addon/"+string(a))
}

// respectSupplied leaves out the configurations that are there and that somebody
// has supplied or edited, by kubeadm's signature: so kubeadm's upgrade does.
func respectSupplied(ctx context.Context, c kubernetes.Interface, objs []runtime.Object) (rest []runtime.Object, err error) {
	for _, o := range objs {
		if cm, ok := o.(*corev1.ConfigMap); ok {
			have, err := c.CoreV1().ConfigMaps(cm.Namespace).Get(ctx, cm.Name, metav1.GetOptions{})
			if err == nil && !signed(have) {
				continue
			} else if err != nil && !apierrors.IsNotFound(err) {
				return nil, fmt.Errorf("cannot read ConfigMap %s: %w", cm.Name, err)
			}
		}
		rest = append(rest, o)
	}
	return rest, nil
}

// reviseAddon revises an add-on's objects: its namespace, what its pods need,
// and then the pods' owner.
func reviseAddon(ctx context.Context, c kubernetes.Interface, before cluster.Before, objs []runtime.Object) ([]string, error) {
	var first, middle, last []runtime.Object
	for _, o := range objs {
		switch o.(type) {
		case *corev1.Namespace:
			first = append(first, o)
		case *appsv1.Deployment, *appsv1.DaemonSet:
			last = append(last, o)
		default:
			middle = append(middle, o)
		}
	}
	return cluster.ReviseInOrder(ctx, c, before, first, middle, last)
}

func addonParams(m *node.Machine) (templates.AddonParams, error) {
	n, rel := m.Node, m.Baked.Release
	if n.Cluster.DNS.Type == images.KubeDNS {
		return templates.AddonParams{}, fmt.Errorf("cannot install DNS: dns.type %s is not supported, only %s is; leave the field out", images.KubeDNS, images.CoreDNS)
	}
	return templates.NewAddonParams(n, rel, pki.Endpoint(n))
}
