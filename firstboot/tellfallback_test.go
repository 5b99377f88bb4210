package firstboot

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbuild/kbuild/firstboot/slot"
	"github.com/kbuild/kbuild/firstboot/upgrade"
)

// TestTellFallback: an update that fell back is told once, as an Event by which
// `kubectl describe node` finds it, with the last boot's reason.
func TestTellFallback(t *testing.T) {
	j := newJoinable(t)
	m := j.first
	n, err := j.admin.CoreV1().Nodes().Get(t.Context(), "node-1", metav1.GetOptions{})
	if err != nil {
		n, err = j.admin.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1"}}, metav1.CreateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	metav1.SetMetaDataLabel(&n.ObjectMeta, corev1.LabelHostname, "node-1")
	if _, err := j.admin.CoreV1().Nodes().Update(t.Context(), n, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	step := upgrade.TellFallbackStep()
	if ok, err := step.Done(t.Context(), m); !ok || err != nil {
		t.Errorf("a node without an update: %v, %v", ok, err)
	}
	// Another one has been begun meanwhile.
	rec := slot.Record{From: "v1.19.12", Begun: time.Now(), PendingEvent: "the update to v1.20.15 fell back to v1.19.12: node-ready: waiting: node node-1 is not Ready"}
	if err := rec.Write(m.Host); err != nil {
		t.Fatal(err)
	}
	if err := runSteps(t.Context(), m, step); err != nil {
		t.Fatal(err)
	}
	if err := runSteps(t.Context(), m, step); err != nil {
		t.Fatal(err)
	}
	list, err := j.admin.CoreV1().Events("default").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 1 {
		t.Fatalf("%d Events, %v; want one", len(list.Items), err)
	}
	e := list.Items[0]
	if want := rec.PendingEvent; e.Reason != "UpgradeFellBack" || e.Message != want || e.InvolvedObject.Name != "node-1" || string(e.InvolvedObject.UID) != "node-1" || e.Type != "Warning" {
		t.Errorf("%s: %s, of %+v", e.Reason, e.Message, e.InvolvedObject)
	}

	// A cluster that takes no Events does not keep a node from its work.
	j.forbids = "/events"
	if err := rec.Write(m.Host); err != nil {
		t.Fatal(err)
	}
	if err := runSteps(t.Context(), m, step); err != nil {
		t.Error(err)
	}
	if now, err := slot.ReadRecord(m.Host); err != nil || now.PendingEvent != "" {
		t.Errorf("%q is still to be told, %v", now.PendingEvent, err)
	}
}
