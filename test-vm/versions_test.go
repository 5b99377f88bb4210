package testvm

import (
	"cmp"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kbuild/kbuild/images"
)

// kbuildProgram is the operator's kbuild.
func kbuildProgram() string { return cmp.Or(os.Getenv("KBUILD"), "../out/bin/kbuild") }

// imagesDir is where scenarios of many versions build images, one after another.
// It skips the test where there is none.
func imagesDir(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("KBUILD_IMAGES")
	if dir == "" {
		t.Skip("KBUILD_IMAGES is not set: want a directory to build images in")
	}
	return dir
}

// pinned are the newest versions of each minor release whose modules are pinned,
// oldest first.
func pinned(t *testing.T) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), kbuildProgram(), "versions", "-o", "json").Output()
	if err != nil {
		t.Fatalf("kbuild versions: %v", err)
	}
	var minors []struct{ Pinned []string }
	if err := json.Unmarshal(out, &minors); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, m := range slices.Backward(minors) {
		if len(m.Pinned) > 0 {
			all = append(all, slices.MaxFunc(m.Pinned, func(a, b string) int {
				if r, err := images.Lookup(a); err == nil && r.Before(b) {
					return -1
				}
				return 1
			}))
		}
	}
	return all
}

// buildImage builds an image of a version for the container lane, which
// removeImage removes.
func buildImage(t *testing.T, version string) Image {
	t.Helper()
	dir := filepath.Join(imagesDir(t), version)
	args := []string{"image", "--version", version, "--out", dir, "--force"}
	rel, err := images.Lookup(version)
	if err != nil {
		t.Fatal(err)
	}
	if conf := ContainerImageConfig(rel); conf != "" {
		file := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", file)
	}
	logf("kbuild %s", strings.Join(args, " "))
	cmd := exec.CommandContext(t.Context(), kbuildProgram(), args...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("kbuild image --version %s: %v", version, err)
	}
	image, err := OpenImage(dir)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// removeImage makes room for the next one.
func removeImage(t *testing.T, version string) {
	t.Helper()
	if os.Getenv("KEEP") == "1" {
		return
	}
	if err := os.RemoveAll(filepath.Join(imagesDir(t), version)); err != nil {
		t.Error(err)
	}
}

// TestScenarioBoots is the scenario Init for many versions: VERSIONS, or all of
// those that are pinned, newest first. It prints a table.
func TestScenarioBoots(t *testing.T) {
	dir := imagesDir(t)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	versions := strings.Fields(os.Getenv("VERSIONS"))
	if len(versions) == 0 || slices.Equal(versions, []string{"all"}) {
		versions = pinned(t)
		slices.Reverse(versions)
	}
	rows := []string{"| Kubernetes | API healthy | Ready | root |", "|---|---|---|---|"}
	for _, v := range versions {
		row := "| " + v + " | failed | | |"
		t.Run(v, func(t *testing.T) {
			t.Setenv("KBUILD_IMAGE", buildImage(t, v).Dir)
			row = initNode(t).String()
			logf("%s", row)
		})
		removeImage(t, v)
		rows = append(rows, row)
	}
	logf("%s lane, one run each:\n\n%s\n", *lane, strings.Join(rows, "\n"))
}
