package firstboot

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/coredns/corefile-migration/migration"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/images"
)

// Keys of CoreDNS's ConfigMap. As kubeadm does, the second holds the Corefile
// that a migrated one was made of.
const (
	corefileKey    = "Corefile"
	corefileBackup = "Corefile-backup"
)

// respectDNS leaves to the administrators what is theirs, when CoreDNS is
// installed a second time: a Corefile of their own, which it only migrates, and
// the number of pods. It returns what is left to do.
func respectDNS(ctx context.Context, m *node.Machine, c kubernetes.Interface, before cluster.Before, objs []runtime.Object) ([]runtime.Object, error) {
	var kept []runtime.Object
	running := "" // version of CoreDNS
	for _, o := range objs {
		want, ok := o.(*appsv1.Deployment)
		if !ok {
			continue
		}
		have, err := c.AppsV1().Deployments(want.Namespace).Get(ctx, want.Name, metav1.GetOptions{})
		if err == nil {
			want.Spec.Replicas = have.Spec.Replicas
			running = dnsVersion(have)
			for _, was := range cluster.Objects[appsv1.Deployment](before) {
				if dnsVersion(&was) != running { // somebody has chosen it, and it stays
					running = ""
				}
			}
		} else if !apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("cannot read Deployment %s: %w", want.Name, err)
		}
	}
	for _, o := range objs {
		if cm, ok := o.(*corev1.ConfigMap); ok {
			have, err := c.CoreV1().ConfigMaps(cm.Namespace).Get(ctx, cm.Name, metav1.GetOptions{})
			switch {
			case err == nil:
				ours := ""
				for _, was := range cluster.Objects[corev1.ConfigMap](before) {
					ours = was.Data[corefileKey]
				}
				data, err := corefileData(have.Data, ours, cm.Data[corefileKey], running, strings.TrimPrefix(m.Baked.Release.CoreDNS.Tag, "v"))
				if err != nil {
					m.Host.Log.Warn("the Corefile is kept as it is, which this image's CoreDNS may not read; see to it with kubectl -n kube-system edit configmap "+cm.Name, slog.Any("error", err))
				}
				if data == nil {
					continue
				}
				cm.Data = data
				if err := cluster.Ensure(ctx, c, cm); err != nil { // this version cannot read the old one
					return nil, err
				}
				continue
			case !apierrors.IsNotFound(err):
				return nil, fmt.Errorf("cannot read ConfigMap %s: %w", cm.Name, err)
			}
		}
		kept = append(kept, o)
	}
	return kept, nil
}

// dnsVersion is the version of CoreDNS that a Deployment runs, as the migration
// library spells it; empty if it cannot be told.
func dnsVersion(d *appsv1.Deployment) string {
	for _, c := range d.Spec.Template.Spec.Containers {
		if _, tag := images.SplitName(c.Image); tag != "" {
			return strings.TrimPrefix(tag, "v")
		}
	}
	return ""
}

// corefileData is what to change in CoreDNS's ConfigMap, which holds have, when
// its pods go from one version of CoreDNS to another; nil is nothing. kubeadm's
// default of any version, and the one that an image of ours has written, give
// way to fresh, this image's. One that administrators have written is theirs, but for what the other version does not
// read any more (kubeadm: cmd/kubeadm/app/phases/addons/dns). On the way back it
// is the one from before the migration, if nobody has written since.
func corefileData(have map[string]string, ours, fresh, from, to string) (map[string]string, error) {
	now, backup := have[corefileKey], have[corefileBackup]
	switch {
	case now == fresh:
		return nil, nil
	case now == "" || now == ours || migration.Default("", now):
		return map[string]string{corefileKey: fresh}, nil
	case from == to || from == "":
		return nil, nil
	}
	if err := migration.ValidUpMigration(from, to); err != nil {
		if made, back := migration.Migrate(to, from, backup, false); back == nil && backup != "" && made == now {
			return map[string]string{corefileKey: backup}, nil
		}
		return nil, fmt.Errorf("cannot migrate the Corefile from CoreDNS %s to %s: %w", from, to, err)
	}
	notices, err := migration.Deprecated(from, to, now)
	if err != nil {
		return nil, fmt.Errorf("cannot read the Corefile: %w", err)
	}
	if !slices.ContainsFunc(notices, func(n migration.Notice) bool { return n.Severity == "removed" || n.Severity == "newdefault" }) {
		return nil, nil
	}
	next, err := migration.Migrate(from, to, now, false)
	if err != nil {
		return nil, fmt.Errorf("cannot migrate the Corefile from CoreDNS %s to %s: %w", from, to, err)
	}
	if next == now { // before a power cut
		return nil, nil
	}
	return map[string]string{corefileKey: next, corefileBackup: now}, nil
}
