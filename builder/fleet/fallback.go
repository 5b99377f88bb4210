package fleet

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbuild/kbuild/firstboot/cluster"
)

// reason is why, with the node's own message.
func (f *Fleet) reason(ctx context.Context, name string, p *progress, why string) string {
	if id, message := f.fellBack(ctx, name); id != p.event && message != "" {
		return why + "; the node reports: " + message
	}
	return why
}

// fellBack is the newest Event in which a node reports why it has fallen back to its
// old slot. The ID differs each time.
func (f *Fleet) fellBack(ctx context.Context, name string) (id, message string) {
	events, err := f.Client.CoreV1().Events(metav1.NamespaceAll).List(ctx, metav1.ListOptions{
		FieldSelector: "reason=" + cluster.FellBackReason + ",involvedObject.kind=Node,involvedObject.name=" + name,
	})
	if err != nil {
		return "", "" // best effort: the message is left out
	}
	var newest time.Time
	for _, e := range events.Items {
		at := e.LastTimestamp.Time
		for _, t := range []time.Time{e.EventTime.Time, e.CreationTimestamp.Time} {
			if t.After(at) {
				at = t
			}
		}
		if !at.Before(newest) {
			newest, id, message = at, fmt.Sprintf("%s %d %s", e.UID, e.Count, e.ResourceVersion), e.Message
		}
	}
	return id, message
}
