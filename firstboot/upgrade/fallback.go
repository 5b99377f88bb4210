package upgrade

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/kubelet"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
	"github.com/kbuild/kbuild/firstboot/slot"
)

// TellFallbackStep tells the cluster that an update of this node was given up,
// as an Event on its Node. A machine without slots has none to tell of.
func TellFallbackStep() converge.Step {
	return converge.Step{
		Name: "tell-fallback",
		Done: func(ctx context.Context, m *node.Machine) (bool, error) {
			rec, news, err := slot.Settled(ctx, m.Host)
			return err == nil && !news && rec.PendingEvent == "", err
		},
		Do: func(ctx context.Context, m *node.Machine) error {
			unlock, err := slot.Lock(m.Host)
			if err != nil {
				return outcome.Retry{After: 2 * time.Second, Why: err.Error()}
			}
			defer unlock()
			rec, err := slot.Settle(ctx, m.Host)
			if err != nil || rec.PendingEvent == "" {
				return err
			}
			m.Host.Log.Error(rec.PendingEvent, slog.String("MESSAGE_ID", FallbackID))
			err = m.Host.Do("tell of the fallback", func() error {
				return cluster.RetryIfTemporary(nodeEvent(ctx, m, cluster.FellBackReason, rec.PendingEvent))
			})
			if _, refused := errors.AsType[*apierrors.StatusError](err); refused { // by a quota, or a policy
				m.Host.Log.Warn("the cluster takes no Event about the fallback; the journal has told of it", slog.Any("error", err))
			} else if err != nil {
				return err
			}
			rec.PendingEvent = ""
			return rec.Write(m.Host)
		},
	}
}

// FallbackID is the journal's MESSAGE_ID of the line that says why an update
// was given up.
const FallbackID = "b5c4d0a2f0d04c1c9a6b0f8f6f4e1d37"

// nodeEvent makes a warning about this machine's Node.
func nodeEvent(ctx context.Context, m *node.Machine, reason, message string) error {
	c, n, err := m.NodeObject(ctx)
	if err != nil {
		return err
	}
	const longest = 1024 // the API's limit for a message
	if len(message) > longest {
		message = message[:longest-4] + " ..."
	}
	now := metav1.NewTime(m.Host.Now())
	e := corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s.%x", n.Name, now.UnixNano()), Namespace: metav1.NamespaceDefault},
		// The kubelet's own Events name a Node's UID like this, and are found by it.
		InvolvedObject: corev1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: n.Name, UID: types.UID(n.Name)},
		Reason:         reason, Message: message, Type: corev1.EventTypeWarning,
		Source:         corev1.EventSource{Component: "kbuild-firstboot", Host: n.Name},
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}
	_, err = c.CoreV1().Events(metav1.NamespaceDefault).Create(ctx, &e, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("cannot make an Event about node %s: %w", n.Name, err)
	}
	return nil
}

// GiveUp writes down why this boot of a new slot ends before its time.
func GiveUp(ctx context.Context, m *node.Machine) error {
	s, err := converge.ReadStatus(m.Host)
	if err != nil {
		return err
	}
	why := s.Summary() + kubelet.LastWords(ctx, m)
	if s.State == converge.StateDone {
		why = "every step holds, but the boot was not complete in time (systemctl list-dependencies boot-complete.target)"
	}
	return slot.Fail(m.Host, why)
}
