package testvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/kbuild/kbuild/test-vm/guest"
)

// KubeadmProgram is where NewKubeadm puts kubeadm in a machine.
const KubeadmProgram = guest.Dir + "/kubeadm"

// CompileKubeadm compiles real kubeadm of a version from its module, or finds
// it compiled in kbuild's cache, and returns its path.
func CompileKubeadm(ctx context.Context, version string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "run", "github.com/kbuild/kbuild/builder/source/cmd/kubeadm", version)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("cannot compile kubeadm %s: %w", version, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// goFile is the file that kbuild-firstboot.service waits for in an idle machine.
const goFile = guest.Dir + "/go"

// NewIdle makes and boots a container in which kbuild-firstboot does not start
// by itself, and waits until everything else has started.
func NewIdle(ctx context.Context, o Options) (Machine, error) {
	creds := map[string]string{"systemd.unit-dropin.kbuild-firstboot.service~idle": "[Unit]\nConditionPathExists=" + goFile + "\n"}
	for k, v := range o.Credentials {
		creds[k] = v
	}
	o.Credentials = creds
	m, err := New(ctx, Container, o)
	if err != nil {
		return nil, err
	}
	err = m.Start(ctx)
	if err == nil {
		err = Until(ctx, m, "systemctl is-system-running | grep -qxE 'running|degraded' && systemctl is-active --quiet containerd.service && sync")
	}
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// FirstbootScript is a shell script that starts kbuild-firstboot in an idle
// machine, and does not wait for it.
const FirstbootScript = "touch " + goFile + " && exec systemctl start --no-block kbuild-firstboot.service"

// NewKubeadm makes and boots an idle container in which only `kubeadm init` or
// `kubeadm join` is missing: the kubeadm program is there, and the runtime has
// the baked images, because there is nowhere to pull them from. The user-data is
// only for kbuild-firstboot to hand over these images.
func NewKubeadm(ctx context.Context, o Options, kubeadm string) (Machine, error) {
	m, err := NewIdle(ctx, o)
	if err != nil {
		return nil, err
	}
	if err = LayKubeadm(m, kubeadm); err == nil {
		_, err = Sh(ctx, m, "kbuild-firstboot run --until images && sync")
	}
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// LayKubeadm copies the kubeadm program into a container.
func LayKubeadm(m Machine, kubeadm string) error {
	return Lay(m, kubeadm, filepath.Base(KubeadmProgram), 0o755)
}

// Lay copies a file of the host into a container, as name in guest.Dir.
func Lay(m Machine, file, name string, mode os.FileMode) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(m.Places().Dir, "share", name), b, mode)
}

// Sh runs a shell script in the machine and returns what it printed. When it
// fails, the error holds all that it printed.
func Sh(ctx context.Context, m Machine, script string) (string, error) {
	var e guest.Exec
	if err := m.Ask(ctx, guest.CmdExec, guest.ExecArgs{Argv: []string{"sh", "-c", script}, Seconds: 300}, &e); err != nil {
		return "", err
	}
	if e.Code != 0 {
		return e.Stdout, fmt.Errorf("%s: exit status %d: %s%s", script, e.Code, e.Stdout, e.Stderr)
	}
	return e.Stdout, nil
}

// Until runs a shell script in the machine until it succeeds, for ten minutes.
func Until(ctx context.Context, m Machine, script string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Minute, errors.New("time is up"))
	defer cancel()
	return Wait(ctx, m, func(string, ...any) {}, script, func(ctx context.Context) (string, error) {
		_, err := Sh(ctx, m, script)
		return "", err
	})
}
