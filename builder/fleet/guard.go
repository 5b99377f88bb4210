package fleet

import (
	"cmp"
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubectl/pkg/drain"
)

// guardOrder names the order that stands by a node that is cordoned, from before
// it is until its machine goes down or it takes pods again: should the operator
// be gone without a word, it lets pods come again by itself.
const guardOrder = "guard"

// longDrain is how long a guard grants a drain that has no limit; one that goes
// on for longer begins anew.
const longDrain = 24 * time.Hour

// guard has a node take pods again by itself if its machine does not go down
// within the limits of a drain and of what comes before and after it.
func (f *Fleet) guard(ctx context.Context, n Node, drain, rest time.Duration) error {
	after := cmp.Or(drain, longDrain) + rest
	o := order{name: guardOrder, what: "stand ready to take pods again", args: []string{"uncordon", "--after", after.String()}}
	job, err := f.begin(ctx, n, o)
	if err == nil {
		_, err = f.await(ctx, n, o, job, corev1.PodRunning)
	}
	if err != nil && job != nil {
		f.end(ctx, job)
	}
	return err
}

// unguard ends the guards of a node that takes pods again, or is gone.
func (f *Fleet) unguard(ctx context.Context, name string) error {
	return f.steady(ctx, func() error { return f.deleteJobs(ctx, orderLabel+"="+guardOrder, name) })
}

// orders lets the Pods of orders stay at a drain.
func orders(p corev1.Pod) drain.PodDeleteStatus {
	if p.Labels[orderLabel] != "" && p.Namespace == metav1.NamespaceSystem {
		return drain.MakePodDeleteStatusSkip()
	}
	return drain.MakePodDeleteStatusOkay()
}
