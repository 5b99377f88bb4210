package fleet

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestOrderJob(t *testing.T) {
	n := Node{Name: "w1", Version: "v1.19.12", BootID: "boot-1"}
	j := nodeTask{name: "apply", args: []string{"upgrade", "apply"}, last: true}.job(n, "k8s.gcr.io/kube-proxy:v1.19.12")
	p := j.Spec.Template.Spec
	got := strings.Join(p.Containers[0].Command, " ")
	want := "/host/usr/bin/kbuild-firstboot --root /host host-run --unit " + j.Name + " --boot boot-1 --outcome /dev/termination-log --outlive -- /usr/bin/kbuild-firstboot upgrade apply"
	if got != want {
		t.Errorf("command\n%s, want\n%s", got, want)
	}
	if p.NodeName != "w1" || p.RestartPolicy != corev1.RestartPolicyNever || *j.Spec.BackoffLimit != 0 || p.Containers[0].ImagePullPolicy != corev1.PullNever {
		t.Errorf("%+v", p)
	}
	if other := (nodeTask{name: "apply"}).job(n, ""); other.Name == j.Name {
		t.Error("two orders have one name")
	}
}

func TestOrderImage(t *testing.T) {
	for _, x := range []struct{ images, want string }{
		{"example.com/app:1 k8s.gcr.io/kube-proxy:v1.19.12 k8s.gcr.io/pause:3.2", "k8s.gcr.io/kube-proxy:v1.19.12"},
		{"k8s.gcr.io/kube-proxy:v1.20.15 k8s.gcr.io/pause:3.2", "k8s.gcr.io/pause:3.2"}, // the other slot's
		{"registry.example.com:5000/k8s/kube-apiserver:v1.19.12", "registry.example.com:5000/k8s/kube-apiserver:v1.19.12"},
		{"example.com/app:1", ""},
	} {
		got, err := Node{Name: "w1", Version: "v1.19.12", Images: strings.Fields(x.images)}.image()
		if got != x.want || (err == nil) != (x.want != "") {
			t.Errorf("of %s: %q, %v", x.images, got, err)
		}
	}
}

func TestStateOf(t *testing.T) {
	status := func(phase corev1.PodPhase, s corev1.ContainerState) *corev1.Pod {
		return &corev1.Pod{Status: corev1.PodStatus{Phase: phase, ContainerStatuses: []corev1.ContainerStatus{{State: s}}}}
	}
	for _, x := range []struct {
		pod  *corev1.Pod
		want taskState
	}{
		{&corev1.Pod{}, taskState{phase: corev1.PodPending}},
		{&corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodFailed, Reason: "OutOfpods", Message: "no room"}}, taskState{corev1.PodFailed, "OutOfpods no room", 0}},
		{&corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Terminated", Message: "imminent node shutdown"}}, taskState{corev1.PodFailed, "Terminated imminent node shutdown", 143}},
		{status(corev1.PodPending, corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImageNeverPull"}}), taskState{corev1.PodPending, "ErrImageNeverPull", 0}},
		{status(corev1.PodRunning, corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}), taskState{corev1.PodRunning, "", 0}},
		{status(corev1.PodFailed, corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 4, Reason: "Error", Message: "a warning\nkbuild-firstboot: no room\n"}}), taskState{corev1.PodFailed, "a warning\nno room", 4}},
		{status(corev1.PodFailed, corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "Error"}}), taskState{corev1.PodFailed, "Error, exit code 137", 137}},
	} {
		if got := stateOf(x.pod); got != x.want {
			t.Errorf("%+v, want %+v", got, x.want)
		}
	}
}
