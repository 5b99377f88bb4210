package source

import (
	"fmt"
	"go/parser"
	"go/token"
	"strings"
	"testing"
	"time"

	"github.com/kbuild/kbuild/images"
)

// Every minor has a whole recipe, no fact of it is said twice, and its main
// files are Go.
func TestKubeRecipes(t *testing.T) {
	for minor := oldestMinor; minor <= newestMinor; minor++ {
		recipe, ok := kubeRecipeOf(minor)
		if !ok || recipe.main == "" || recipe.Kubectl == "" || recipe.kubeadm == "" {
			t.Errorf("the recipe of v1.%d is %+v", minor, recipe)
			continue
		}
		b, err := kubeBuild(images.Release{Version: fmt.Sprintf("v1.%d.0", minor)}, time.Unix(0, 0))
		if err != nil {
			t.Error(err)
		}
		for _, name := range []string{"kube/main.go", "kubeadm/main.go"} {
			if _, err := parser.ParseFile(token.NewFileSet(), name, b.Files[name], parser.AllErrors); err != nil {
				t.Errorf("v1.%d: %v", minor, err)
			}
		}
	}
	for _, minor := range []int{oldestMinor - 1, newestMinor + 1} {
		_, err := kubeBuild(images.Release{Version: fmt.Sprintf("v1.%d.0", minor)}, time.Unix(0, 0))
		if err == nil || !strings.Contains(err.Error(), "no recipe for its minor version") {
			t.Errorf("v1.%d: %v", minor, err)
		}
	}
	facts := kubeFacts()
	for i, f := range facts {
		if f.from > f.to || f.from < oldestMinor || f.to > newestMinor {
			t.Errorf("fact %d holds from v1.%d to v1.%d", i, f.from, f.to)
		}
		for j, g := range facts[:i] {
			// The second alone leaves the same as both do where they set the same field.
			var both, later kubeRecipe
			g.set(&both)
			f.set(&both)
			f.set(&later)
			if fmt.Sprint(both) == fmt.Sprint(later) && f.from <= g.to && g.from <= f.to {
				t.Errorf("facts %d and %d say the same of a minor", j, i)
			}
		}
	}
}
