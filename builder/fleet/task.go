package fleet

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/images"
)

// nodeTask is work for a node's own kbuild-firstboot.
type nodeTask struct {
	name string   // part of the names of its Job and its service: "stage"
	what string   // in messages: "stage the image"
	args []string // of kbuild-firstboot
	last bool     // the machine goes down before the task and its Pod have ended
}

const (
	// taskLabel is on the Jobs and their Pods; its value is the task's name.
	taskLabel = "kbuild.dev/task"
	// startPatience is how long the Pod of a task may take to start.
	startPatience = 3 * time.Minute
	// cleanupTime is how long cleaning up may take.
	cleanupTime = 30 * time.Second
	// hostDir is where the host's files are mounted in the Pod.
	hostDir = "/host"
)

// job is the Job that runs the task on node n. It uses an image that the node
// holds, so that nothing is pulled, and runs only in the present boot, so that
// nothing is repeated after a reboot. It runs as the host's root, as anyone who may
// ask systemd for a service does anyway; it is privileged, so that no security
// profile keeps it from the bus.
func (t nodeTask) job(n Node, image string) *batchv1.Job {
	name := "kbuild-" + t.name + "-" + strings.ToLower(rand.Text()[:10])
	labels := map[string]string{"app.kubernetes.io/managed-by": "kbuild", taskLabel: t.name}
	command := []string{hostDir + "/usr/bin/kbuild-firstboot", "--root", hostDir, "host-run", "--unit", name, "--boot", n.BootID, "--outcome", corev1.TerminationMessagePathDefault}
	if t.last {
		command = append(command, "--outlive")
	}
	command = append(command, "--", "/usr/bin/kbuild-firstboot")
	c := corev1.Container{
		Name: t.name, Image: image, ImagePullPolicy: corev1.PullNever, Command: append(command, t.args...),
		Env:                      []corev1.EnvVar{{Name: "DBUS_SYSTEM_BUS_ADDRESS", Value: "unix:path=" + hostDir + "/run/dbus/system_bus_socket"}},
		SecurityContext:          &corev1.SecurityContext{Privileged: new(true), RunAsUser: new(int64(0))},
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
	}
	pod := corev1.PodSpec{
		NodeName: n.Name, HostNetwork: true, RestartPolicy: corev1.RestartPolicyNever, DNSPolicy: corev1.DNSDefault,
		PriorityClassName:            "system-node-critical",
		Tolerations:                  []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
		AutomountServiceAccountToken: new(false), EnableServiceLinks: new(false),
	}
	for _, m := range []struct {
		name, path, at string
		kind           corev1.HostPathType
		readOnly       bool
	}{
		{"usr", "/usr", hostDir, corev1.HostPathDirectory, true},
		{"bus", "/run/dbus", hostDir, corev1.HostPathUnset, false},
		{"systemd", "/run/systemd/private", "", corev1.HostPathUnset, false},         // used if the bus does not answer
		{"run", "/run/kbuild", hostDir, corev1.HostPathDirectoryOrCreate, false},     // what the service prints
		{"boot", "/proc/sys/kernel/random", hostDir, corev1.HostPathDirectory, true}, // which boot this is
	} {
		pod.Volumes = append(pod.Volumes, corev1.Volume{Name: m.name, VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: m.path, Type: &m.kind}}})
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: m.name, MountPath: m.at + m.path, ReadOnly: m.readOnly})
	}
	pod.Containers = []corev1.Container{c}
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: metav1.NamespaceSystem, Labels: labels},
		Spec: batchv1.JobSpec{
			BackoffLimit: new(int32(0)), TTLSecondsAfterFinished: new(int32(3600)),
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: pod},
		},
	}
}

// image is the name of an image that the node holds for certain, and can run.
func (n Node) image() (string, error) {
	for _, want := range []string{"kube-proxy", "pause", "kube-apiserver"} {
		i := slices.IndexFunc(n.Images, func(ref string) bool {
			name, tag := images.SplitName(ref)
			// The node may hold those of its other slot's version, too.
			return path.Base(name) == want && (want == "pause" || tag == n.Version)
		})
		if i >= 0 {
			return n.Images[i], nil
		}
	}
	return "", fmt.Errorf("cannot run a task on node %s: it holds no image of kube-proxy or pause of its version %s for a Pod", n.Name, n.Version)
}

// begin starts the task on node n, after it has ended those that an earlier run has
// left; a guard is only ended by another one. A Job that is returned with an error
// may or may not exist.
func (f *Fleet) begin(ctx context.Context, n Node, t nodeTask) (*batchv1.Job, error) {
	image, err := n.image()
	if err != nil {
		return nil, err
	}
	if err := f.endOthers(ctx, n.Name, t.name == guardTask); err != nil {
		return nil, err
	}
	job := t.job(n, image)
	err = f.steady(ctx, func() error {
		_, err := f.Client.BatchV1().Jobs(metav1.NamespaceSystem).Create(ctx, job, metav1.CreateOptions{FieldManager: cluster.Manager})
		if apierrors.IsAlreadyExists(err) { // by a request whose response was lost: the name is random
			return nil
		}
		return err
	})
	if err != nil {
		return job, fmt.Errorf("cannot have node %s %s: %w", n.Name, t.what, err)
	}
	return job, nil
}

// do runs the task on node n, and returns the last lines of its output.
func (f *Fleet) do(ctx context.Context, n Node, t nodeTask) (string, error) {
	job, err := f.begin(ctx, n, t)
	if job != nil {
		defer f.end(ctx, job)
	}
	if err != nil {
		return "", err
	}
	return f.await(ctx, n, t, job, corev1.PodSucceeded)
}

// await waits until the Pod of a task is in a phase, or has succeeded.
func (f *Fleet) await(ctx context.Context, n Node, t nodeTask, job *batchv1.Job, phase corev1.PodPhase) (string, error) {
	begun := time.Now()
	for {
		s, err := f.look(ctx, job)
		switch {
		case err != nil:
			return "", err
		case s.phase == corev1.PodSucceeded || s.phase == phase:
			return s.said, nil
		case s.phase == corev1.PodFailed:
			return "", fmt.Errorf("node %s cannot %s: %s", n.Name, t.what, s.said)
		case s.phase == corev1.PodPending && time.Since(begun) > startPatience:
			return "", fmt.Errorf("cannot have node %s %s: the Pod does not start: %s", n.Name, t.what, cmp.Or(s.said, "the kubelet does not say why"))
		}
		if err := f.sleep(ctx); err != nil {
			return "", err
		}
	}
}

// taskState is the state of a task.
type taskState struct {
	phase corev1.PodPhase // Pending until the container runs
	said  string
	code  int32 // exit code, where it has failed
}

// look returns the state of the task of a Job: unknown while the API server does
// not answer.
func (f *Fleet) look(ctx context.Context, job *batchv1.Job) (taskState, error) {
	pods, err := f.Client.CoreV1().Pods(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{LabelSelector: "job-name=" + job.Name})
	if cluster.Temporary(err) {
		return taskState{phase: corev1.PodUnknown}, nil
	}
	if err != nil {
		return taskState{}, fmt.Errorf("cannot list the Pods of Job %s: %w", job.Name, err)
	}
	best := taskState{phase: corev1.PodPending}
	for _, p := range pods.Items {
		if s := stateOf(&p); best.phase == corev1.PodPending {
			best = s
		}
	}
	return best, nil
}

// stateOf is the state of the task of a Pod.
func stateOf(p *corev1.Pod) taskState {
	s := taskState{phase: p.Status.Phase, said: strings.TrimSpace(p.Status.Reason + " " + p.Status.Message)}
	if s.phase == "" {
		s.phase = corev1.PodPending
	}
	for _, c := range p.Status.ContainerStatuses {
		switch {
		case c.State.Terminated != nil:
			t := c.State.Terminated
			s.code = t.ExitCode
			s.said = cmp.Or(cluster.ReadJobResult(t.Message).String(), strings.TrimSpace(fmt.Sprintf("%s, exit code %d", t.Reason, t.ExitCode)))
		case c.State.Waiting != nil:
			s.said = strings.TrimSpace(c.State.Waiting.Reason + " " + c.State.Waiting.Message)
		}
	}
	// The kubelet's reasons for a Pod that ends because its machine goes down.
	if r := p.Status.Reason; s.phase == corev1.PodFailed && (r == "Terminated" || r == "NodeShutdown") {
		s.code = 128 + 15
	}
	return s
}

// end removes a Job and its Pods.
func (f *Fleet) end(ctx context.Context, job *batchv1.Job) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	err := f.steady(ctx, func() error { return f.deleteJob(ctx, job.Name) })
	if err != nil {
		f.report(job.Spec.Template.Spec.NodeName, Wait, fmt.Sprintf("cannot delete Job %s: %v; it is deleted by itself later", job.Name, err))
	}
}

func (f *Fleet) deleteJob(ctx context.Context, name string) error {
	return ignoreNotFound(f.Client.BatchV1().Jobs(metav1.NamespaceSystem).Delete(ctx, name, metav1.DeleteOptions{PropagationPolicy: new(metav1.DeletePropagationBackground)}))
}

// deleteJobs deletes the Jobs of a node that a label selects.
func (f *Fleet) deleteJobs(ctx context.Context, label, node string) error {
	jobs, err := f.Client.BatchV1().Jobs(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{LabelSelector: label})
	if err != nil {
		return err
	}
	for _, j := range jobs.Items {
		if j.Spec.Template.Spec.NodeName == node {
			if err := f.deleteJob(ctx, j.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// endOthers ends the tasks that earlier runs have left on a node, guards only if
// asked to: the Lease guarantees that no other operator is at work.
func (f *Fleet) endOthers(ctx context.Context, node string, guards bool) error {
	label := taskLabel
	if !guards {
		label += "," + taskLabel + "!=" + guardTask
	}
	for begun := time.Now(); ; {
		left := 0
		err := f.steady(ctx, func() error {
			left = 0
			if err := f.deleteJobs(ctx, label, node); err != nil {
				return err
			}
			pods, err := f.Client.CoreV1().Pods(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{LabelSelector: label, FieldSelector: "spec.nodeName=" + node})
			for _, p := range pods.Items {
				if p.Status.Phase == corev1.PodRunning {
					left++
				}
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("cannot end the tasks that an earlier run has left on node %s: %w", node, err)
		}
		if left == 0 || time.Since(begun) > time.Minute { // its kubelet may never end it; it does nothing in another boot
			return nil
		}
		if err := f.sleep(ctx); err != nil {
			return err
		}
	}
}
