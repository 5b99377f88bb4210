package fleet

import (
	"cmp"
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubectl/pkg/drain"
)

// guardTask is the name of the task that guards a cordoned node: after a crash of
// the operator's machine, the node uncordons itself once both time-outs expire. It
// starts before the node is cordoned, and ends when its machine goes down or it is
// uncordoned.
const guardTask = "guard"

// longDrain is the time that a guard grants a drain without a limit. A drain that
// takes longer starts again.
const longDrain = 24 * time.Hour

// guard has a node uncordon itself if its machine does not go down within the time
// of a drain and of what comes before and after it.
func (f *Fleet) guard(ctx context.Context, n Node, drain, rest time.Duration) error {
	after := cmp.Or(drain, longDrain) + rest
	t := nodeTask{name: guardTask, what: "guard its cordon", args: []string{"uncordon", "--after", after.String()}}
	job, err := f.begin(ctx, n, t)
	if err == nil {
		_, err = f.await(ctx, n, t, job, corev1.PodRunning)
	}
	if err != nil && job != nil {
		f.end(ctx, job)
	}
	return err
}

// unguard ends the guards of a node that is uncordoned, or gone.
func (f *Fleet) unguard(ctx context.Context, name string) error {
	return f.steady(ctx, func() error { return f.deleteJobs(ctx, taskLabel+"="+guardTask, name) })
}

// skipTasks keeps the Pods of node tasks when a node is drained.
func skipTasks(p corev1.Pod) drain.PodDeleteStatus {
	if p.Labels[taskLabel] != "" && p.Namespace == metav1.NamespaceSystem {
		return drain.MakePodDeleteStatusSkip()
	}
	return drain.MakePodDeleteStatusOkay()
}
