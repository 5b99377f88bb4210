package cluster

import (
	"errors"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// The functions here carry the content of a wanted object into the one that
// the cluster holds; labels, annotations and owners are ensure's.

// errRecreate says that the change cannot be made in place.
var errRecreate = errors.New("the object must be deleted and created again")

func keep[T any](_, _ T) error { return nil }

func setConfigMap(have, want *corev1.ConfigMap) error {
	have.Data = merged(have.Data, want.Data)
	have.BinaryData = merged(have.BinaryData, want.BinaryData)
	return nil
}

func setSecret(have, want *corev1.Secret) error {
	if want.Type != "" && have.Type != want.Type { // immutable
		return errRecreate
	}
	have.Data = merged(have.Data, want.Data)
	return nil
}

func setRoleBinding(have, want *rbacv1.RoleBinding) error {
	if have.RoleRef != want.RoleRef { // immutable
		return errRecreate
	}
	if !sameSubjects(have.Subjects, want.Subjects) {
		have.Subjects = want.Subjects
	}
	return nil
}

func setClusterRoleBinding(have, want *rbacv1.ClusterRoleBinding) error {
	if have.RoleRef != want.RoleRef { // immutable
		return errRecreate
	}
	if !sameSubjects(have.Subjects, want.Subjects) {
		have.Subjects = want.Subjects
	}
	return nil
}

// sameSubjects takes into account that the API server fills in the API group
// of users and groups.
func sameSubjects(have, want []rbacv1.Subject) bool {
	if len(have) != len(want) {
		return false
	}
	for i, w := range want {
		h := have[i]
		if w.APIGroup == "" && w.Kind != rbacv1.ServiceAccountKind {
			w.APIGroup = rbacv1.GroupName
		}
		if h.APIGroup == "" && h.Kind != rbacv1.ServiceAccountKind {
			h.APIGroup = rbacv1.GroupName
		}
		if h != w {
			return false
		}
	}
	return true
}

func setService(have, want *corev1.Service) error {
	if want.Spec.ClusterIP != "" && have.Spec.ClusterIP != want.Spec.ClusterIP {
		return fmt.Errorf("its address is %s and cannot become %s: networking.serviceSubnet is fixed when a cluster is made", have.Spec.ClusterIP, want.Spec.ClusterIP)
	}
	have.Spec.Ports = defaultedPorts(want.Spec.Ports, have.Spec.Ports)
	have.Spec.Selector = want.Spec.Selector
	return nil
}

// defaultedPorts fills in what the API server does, and keeps the node ports
// that it gave out.
func defaultedPorts(want, have []corev1.ServicePort) []corev1.ServicePort {
	ports := slices.Clone(want)
	for i := range ports {
		p := &ports[i]
		if p.Protocol == "" {
			p.Protocol = corev1.ProtocolTCP
		}
		if p.TargetPort == (intstr.IntOrString{}) {
			p.TargetPort = intstr.FromInt32(p.Port)
		}
		for _, h := range have {
			if p.NodePort == 0 && h.Name == p.Name {
				p.NodePort = h.NodePort
			}
		}
	}
	return ports
}

// A workload takes the whole wanted spec, so that what is no longer wanted goes
// too. The API server fills in its defaults again, and writes nothing and
// starts no rollout when the outcome is what it has already.

func setDeployment(have, want *appsv1.Deployment) error {
	if !equality.Semantic.DeepEqual(have.Spec.Selector, want.Spec.Selector) { // immutable
		return errRecreate
	}
	have.Spec = want.Spec
	return nil
}

func setDaemonSet(have, want *appsv1.DaemonSet) error {
	if !equality.Semantic.DeepEqual(have.Spec.Selector, want.Spec.Selector) { // immutable
		return errRecreate
	}
	have.Spec = want.Spec
	return nil
}
