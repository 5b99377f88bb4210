package firstboot

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/images"
)

// diskView is all that a machine's disk says, "FILE FIELD" by text. Random
// bytes are left out, and what they are is put in their place.
func diskView(t *testing.T, root string) map[string]string {
	t.Helper()
	view := map[string]string{}
	for _, tree := range []string{"etc/kubernetes", "var/lib"} {
		err := filepath.WalkDir(filepath.Join(root, tree), func(file string, d fs.DirEntry, err error) error {
			if os.IsNotExist(err) {
				return nil
			}
			if err != nil {
				return err
			}
			name := strings.TrimPrefix(file, root)
			if strings.HasPrefix(filepath.Base(name), ".kbuild-") {
				return nil // of a write that was cut; nobody reads it
			}
			if d.Type()&fs.ModeSymlink != 0 {
				view[name+" link"], err = os.Readlink(file)
				return err
			}
			st, err := d.Info()
			if err != nil {
				return err
			}
			view[name+" mode"] = st.Mode().String()
			if d.IsDir() {
				return nil
			}
			b, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			for field, v := range oracleFields(t, root, name, b) {
				view[name+" "+field] = v
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return view
}

// oracleFields takes a file apart.
func oracleFields(t *testing.T, root, name string, b []byte) map[string]string {
	t.Helper()
	switch ext := filepath.Ext(name); {
	case ext == ".crt":
		return oracleCert(t, root, name, b)
	case ext == ".key" || ext == ".pub":
		return map[string]string{"key": oracleKeyOf(t, b)}
	case ext == ".yaml":
		return oracleObject(t, b)
	case ext == ".conf":
		fields := oracleObject(t, b)
		for k, v := range fields {
			raw, err := base64.StdEncoding.DecodeString(v)
			if err != nil {
				continue
			}
			switch {
			case strings.HasSuffix(k, "certificate-authority-data"):
				ca, err := filepath.Glob(filepath.Join(root, "etc/kubernetes/*pki/ca.crt"))
				if err != nil || len(ca) != 1 {
					t.Fatalf("authorities: %v %v", ca, err)
				}
				want, err := os.ReadFile(ca[0])
				if err != nil || !bytes.Equal(raw, want) {
					t.Errorf("%s %s is not the cluster's authority", root, name)
				}
				fields[k] = "ca.crt"
			case strings.HasSuffix(k, "client-key-data"):
				fields[k] = oracleKeyOf(t, raw)
			case strings.HasSuffix(k, "client-certificate-data"):
				for f, v := range oracleCert(t, root, name, raw) {
					fields[k+" "+f] = v
				}
				delete(fields, k)
			}
		}
		return fields
	}
	return map[string]string{"content": string(b)}
}

// oracleCert is every field of a certificate that is not random.
func oracleCert(t *testing.T, root, name string, b []byte) map[string]string {
	t.Helper()
	block, rest := pem.Decode(b)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		t.Fatalf("%s: not one PEM block", name)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	var ips, exts []string
	for _, ip := range c.IPAddresses {
		ips = append(ips, ip.String())
	}
	for _, e := range c.Extensions {
		exts = append(exts, fmt.Sprintf("%s critical=%t", e.Id, e.Critical))
	}
	slices.Sort(ips)
	dns := slices.Clone(c.DNSNames)
	slices.Sort(dns)
	// A year is exact to the time that making the certificate took.
	life := c.NotAfter.Sub(c.NotBefore).Round(time.Hour)
	f := map[string]string{
		"pem": block.Type, "version": fmt.Sprint(c.Version),
		"subject": c.Subject.String(), "issuer": c.Issuer.String(),
		"dns": strings.Join(dns, " "), "ip": strings.Join(ips, " "),
		"usage": fmt.Sprint(c.KeyUsage), "extended usage": fmt.Sprint(c.ExtKeyUsage),
		"authority": fmt.Sprintf("%t %t %d %t", c.BasicConstraintsValid, c.IsCA, c.MaxPathLen, c.MaxPathLenZero),
		"key":       oraclePublic(c.PublicKey), "signature": c.SignatureAlgorithm.String(),
		"extensions": strings.Join(exts, ", "),
		"validity":   life.String(), "in force": fmt.Sprint(time.Now().After(c.NotBefore)),
		"serial": fmt.Sprintf("zero: %t", c.SerialNumber.Sign() == 0),
	}
	dir := filepath.Join(root, "etc/kubernetes")
	authorities, _ := filepath.Glob(dir + "/*pki/*ca.crt")
	more, _ := filepath.Glob(dir + "/*pki/etcd/ca.crt")
	for _, file := range append(authorities, more...) {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(raw)
		ca, err := x509.ParseCertificate(block.Bytes)
		if err == nil && c.CheckSignatureFrom(ca) == nil {
			f["signer"] += strings.TrimPrefix(file, dir)
			f["starts with its signer"] = fmt.Sprint(c.NotBefore.Equal(ca.NotBefore))
			f["names its signer's key"] = fmt.Sprint(bytes.Equal(c.AuthorityKeyId, ca.SubjectKeyId))
		}
	}
	return f
}

func oraclePublic(k any) string {
	switch k := k.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d, exponent %d", k.N.BitLen(), k.E)
	case *ecdsa.PublicKey:
		return "ECDSA " + k.Params().Name
	}
	return fmt.Sprintf("%T", k)
}

func oracleKeyOf(t *testing.T, b []byte) string {
	t.Helper()
	block, rest := pem.Decode(b)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		t.Fatal("a key is not one PEM block")
	}
	switch block.Type {
	case "RSA PRIVATE KEY":
		k, err := x509.ParsePKCS1PrivateKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return block.Type + ": " + oraclePublic(&k.PublicKey)
	case "EC PRIVATE KEY":
		k, err := x509.ParseECPrivateKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return block.Type + ": " + oraclePublic(&k.PublicKey)
	case "PUBLIC KEY":
		k, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return block.Type + ": " + oraclePublic(k)
	}
	return block.Type
}

// oracleObject flattens YAML, with the flags of a pod's command by their
// names, so that a difference says which one.
func oracleObject(t *testing.T, b []byte) map[string]string {
	t.Helper()
	var v any
	if err := yaml.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	flat := map[string]any{}
	flatten(byName(v), "", flat)
	out := map[string]string{}
	for k, v := range flat {
		text := fmt.Sprint(v)
		if flag, value, ok := strings.Cut(text, "="); ok && strings.Contains(k, ".command.") && strings.HasPrefix(flag, "--") { // a flag
			k, text = k[:strings.LastIndex(k, ".")]+"."+flag, value
		}
		if text != "<nil>" && k != ".status." { // as objects, null and absent are one
			out[k] = text
		}
	}
	return out
}

// byName makes a list whose elements have names (containers, volumes, mounts,
// variables) a map by these names, so that a difference says which one.
func byName(v any) any {
	switch v := v.(type) {
	case []any:
		named := map[string]any{}
		for i := range v {
			v[i] = byName(v[i])
			if m, ok := v[i].(map[string]any); ok && m["name"] != nil {
				named[fmt.Sprintf("[%s]", m["name"])] = m
			}
		}
		if len(named) == len(v) && len(v) > 0 {
			return named
		}
	case map[string]any:
		for k := range v {
			v[k] = byName(v[k])
		}
	}
	return v
}

// oracleContents are the files of a machine.
func oracleContents(t *testing.T, root string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(root+"/etc/kubernetes/.", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if os.IsNotExist(err) {
				return nil
			}
			return err
		}
		b, err := os.ReadFile(file)
		out[strings.TrimPrefix(file, root)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// configMaps is the configuration that kubeadm would upload.
func (k oracleKubeadm) configMaps(t *testing.T, doc []byte) map[string]string {
	t.Helper()
	root := oracleRoot(t)
	if err := os.WriteFile(filepath.Join(root, "kubeadm.yaml"), doc, 0o600); err != nil {
		t.Fatal(err)
	}
	// It fails at the very end, when it wants to tell how to join: that needs
	// what the skipped phases make. What it shows before is what counts.
	shown, err := k.command(root, nil, "init", "--dry-run", "--config=/kubeadm.yaml",
		"--skip-phases=preflight,certs,kubeconfig,kubelet-start,etcd,wait-control-plane,mark-control-plane,bootstrap-token,kubelet-finalize,addon/coredns").CombinedOutput()
	out := string(shown)
	view := map[string]string{}
	for _, name := range []string{"ClusterConfiguration", "ClusterStatus", "kubelet", "config.conf"} {
		_, rest, ok := strings.Cut(out, "\n\t  "+name+": |")
		if !ok {
			t.Fatalf("kubeadm shows no %s: %v\n%s", name, err, out)
		}
		_, rest, _ = strings.Cut(rest, "\n")
		var text strings.Builder
		for line := range strings.SplitSeq(rest, "\n") {
			line, ok := strings.CutPrefix(line, "\t    ")
			if !ok {
				break
			}
			text.WriteString(line + "\n")
		}
		for f, v := range oracleObject(t, []byte(text.String())) {
			view["ConfigMap:"+name+" "+f] = v
		}
	}
	return view
}

func oracleOurConfigMaps(t *testing.T, n *config.Node, rel images.Release) map[string]string {
	t.Helper()
	view := map[string]string{}
	add := func(name string, b []byte, err error) {
		if err != nil {
			t.Fatal(err)
		}
		for f, v := range oracleObject(t, b) {
			view["ConfigMap:"+name+" "+f] = v
		}
	}
	b, err := config.MarshalCluster(n, rel)
	add("ClusterConfiguration", b, err)
	b, err = config.MarshalClusterStatus(map[string]config.APIEndpoint{n.Init.NodeRegistration.Name: n.Init.LocalAPIEndpoint}, rel)
	add("ClusterStatus", b, err)
	b, err = config.MarshalKubelet(n, rel)
	add("kubelet", b, err)
	b, err = config.MarshalKubeProxy(n, rel)
	add("config.conf", b, err)
	return view
}

// oracleList is testdata/oracle-differences.txt.
type oracleList struct {
	mu   sync.Mutex
	rows []oracleRow
}

// oracleRow allows one difference. Version, name and file are patterns as for
// path.Match; the field is the whole rest.
type oracleRow struct {
	line                       int
	version, name, file, field string
	used                       bool
}

const oracleListFile = "testdata/oracle-differences.txt"

// readOracleList reads lines of VERSION CASE FILE FIELD, each after a comment
// that gives the reason.
func readOracleList(t *testing.T) *oracleList {
	t.Helper()
	f, err := os.Open(oracleListFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l := &oracleList{}
	reason := false
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		switch {
		case text == "":
			reason = false
			continue
		case strings.HasPrefix(text, "#"):
			reason = true
			continue
		case !reason:
			t.Fatalf("%s:%d: no reason is given above", oracleListFile, n)
		}
		w := strings.SplitN(text, " ", 4)
		if len(w) != 4 {
			t.Fatalf("%s:%d: want VERSION CASE FILE FIELD", oracleListFile, n)
		}
		l.rows = append(l.rows, oracleRow{line: n, version: w[0], name: w[1], file: w[2], field: w[3]})
	}
	return l
}

func (l *oracleList) has(version, name, at string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	file, field, _ := strings.Cut(at, " ")
	match := func(pattern, s string) bool {
		ok, err := filepath.Match(pattern, s)
		return err == nil && ok
	}
	for i := range l.rows {
		r := &l.rows[i]
		if match(r.version, version) && match(r.name, name) && match(r.file, file) && r.field == field {
			r.used = true
			return true
		}
	}
	return false
}

func (l *oracleList) checkUsed(t *testing.T) {
	for _, r := range l.rows {
		if !r.used {
			t.Errorf("%s:%d: %s %s %s %s does not differ any more: remove it", oracleListFile, r.line, r.version, r.name, r.file, r.field)
		}
	}
}
