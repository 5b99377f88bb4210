package firstboot

import (
	"context"
	"testing"

	"github.com/kbuild/kbuild/firstboot/cluster/apitest"
)

// BenchmarkClusterSteps measures what the steps take on a fresh cluster, and
// on a later boot, when all is so.
func BenchmarkClusterSteps(b *testing.B) {
	ctx := context.Background()
	s := apitest.Real(b)
	c := s.Client(b)
	clean := dump(b, c)
	b.Run("fresh", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			wipe(b, c, clean)
			registerNode(b, c)
			m := clusterRun(b, s, testUserdata)
			b.StartTimer()
			if err := runSteps(ctx, m, clusterSteps()...); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("again", func(b *testing.B) {
		m := clusterRun(b, s, testUserdata)
		if err := runSteps(ctx, m, clusterSteps()...); err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if err := runSteps(ctx, m, clusterSteps()...); err != nil {
				b.Fatal(err)
			}
		}
	})
}
