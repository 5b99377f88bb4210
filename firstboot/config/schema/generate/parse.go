package main

import (
	"fmt"
	"go/ast"
	goparser "go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"

	"github.com/kbuild/kbuild/firstboot/config/schema"
)

// leaves are types whose JSON is not that of their declaration.
func leaves() map[string]string {
	return map[string]string{
		"k8s.io/apimachinery/pkg/apis/meta/v1.Duration": "duration",
		"time.Duration": "int64", // nanoseconds
		"k8s.io/apimachinery/pkg/apis/meta/v1.Time":                                     "time",
		"k8s.io/apimachinery/pkg/api/resource.Quantity":                                 "quantity",
		"k8s.io/apimachinery/pkg/api/resource.QuantityValue":                            "quantity",
		"k8s.io/component-base/logs/api/v1.TimeOrMetaDuration":                          "nanoseconds",
		"k8s.io/kubernetes/cmd/kubeadm/app/apis/bootstraptoken/v1.BootstrapTokenString": "string",
		"k8s.io/kubernetes/cmd/kubeadm/app/apis/kubeadm/v1beta1.BootstrapTokenString":   "string",
		"k8s.io/kubernetes/cmd/kubeadm/app/apis/kubeadm/v1beta2.BootstrapTokenString":   "string",
	}
}

type pkg struct {
	types map[string]*ast.TypeSpec
	file  map[string]*ast.File // the file that declares a type
	files []*ast.File
}

// parser reads declarations, package by package, into out.
type parser struct {
	dirs map[string]string // module path → directory
	pkgs map[string]*pkg
	out  schema.Schema
}

func (p *parser) load(path string) (*pkg, error) {
	if k, ok := p.pkgs[path]; ok {
		return k, nil
	}
	dir := ""
	for m, d := range p.dirs {
		if rest, ok := strings.CutPrefix(path+"/", m+"/"); ok {
			dir = filepath.Join(d, rest)
		}
	}
	if dir == "" {
		return nil, fmt.Errorf("package %s is in none of the modules", path)
	}
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	k := &pkg{types: map[string]*ast.TypeSpec{}, file: map[string]*ast.File{}}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := goparser.ParseFile(token.NewFileSet(), name, nil, goparser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		k.files = append(k.files, f)
		ast.Inspect(f, func(n ast.Node) bool {
			if t, ok := n.(*ast.TypeSpec); ok {
				k.types[t.Name.Name], k.file[t.Name.Name] = t, f
			}
			return true
		})
	}
	p.pkgs[path] = k
	return k, nil
}

func (p *parser) has(path, name string) bool {
	k, err := p.load(path)
	return err == nil && k.types[name] != nil
}

// typ returns the schema's spelling of a named type, and records it if it is
// a struct.
func (p *parser) typ(path, name string) (string, error) {
	if leaf, ok := leaves()[path+"."+name]; ok {
		return leaf, nil
	}
	k, err := p.load(path)
	if err != nil {
		return "", err
	}
	t := k.types[name]
	if t == nil {
		return "", fmt.Errorf("%s.%s is not declared", path, name)
	}
	st, ok := t.Type.(*ast.StructType)
	if !ok {
		return p.expr(path, k.file[name], t.Type)
	}
	id := filepath.Base(path) + "." + name
	if _, ok := p.out.Types[id]; !ok {
		p.out.Types[id] = map[string]string{}
		if err := p.fields(path, k.file[name], st, p.out.Types[id]); err != nil {
			return "", fmt.Errorf("%s: %w", id, err)
		}
	}
	return "$" + id, nil
}

func (p *parser) fields(path string, file *ast.File, st *ast.StructType, into map[string]string) error {
	for _, f := range st.Fields.List {
		tag := ""
		if f.Tag != nil {
			s, err := strconv.Unquote(f.Tag.Value)
			if err != nil {
				return err
			}
			tag = reflect.StructTag(s).Get("json")
		}
		name, opts, _ := strings.Cut(tag, ",")
		if name == "-" {
			continue
		}
		typ, err := p.expr(path, file, f.Type)
		if err != nil {
			return err
		}
		if len(f.Names) == 0 && name == "" { // embedded: its fields are ours
			for n, t := range p.out.Types[strings.TrimPrefix(typ, "$")] {
				if n != "kind" && n != "apiVersion" {
					into[n] = t
				}
			}
			continue
		}
		if name == "" {
			return fmt.Errorf("field %s has no JSON name", f.Names[0])
		}
		if strings.Contains(opts, "omitempty") {
			typ += " omitempty"
		}
		into[name] = typ
	}
	return nil
}

func (p *parser) expr(path string, file *ast.File, e ast.Expr) (string, error) {
	switch e := e.(type) {
	case *ast.Ident:
		switch e.Name {
		case "string", "bool", "int", "int32", "int64", "uint32", "uint64", "float32", "float64", "byte":
			return e.Name, nil
		}
		return p.typ(path, e.Name)
	case *ast.SelectorExpr:
		name := e.X.(*ast.Ident).Name
		for _, im := range file.Imports {
			ip, err := strconv.Unquote(im.Path.Value)
			if err != nil {
				return "", err
			}
			if (im.Name != nil && im.Name.Name == name) || (im.Name == nil && filepath.Base(ip) == name) {
				return p.typ(ip, e.Sel.Name)
			}
		}
		return "", fmt.Errorf("package %s is not imported", name)
	case *ast.StarExpr:
		s, err := p.expr(path, file, e.X)
		return "*" + s, err
	case *ast.ArrayType:
		s, err := p.expr(path, file, e.Elt)
		return "[]" + s, err
	case *ast.MapType:
		s, err := p.expr(path, file, e.Value)
		return "map " + s, err
	}
	return "", fmt.Errorf("cannot express a %T", e)
}

// featureGates reads kubeadm's InitFeatureGates: name → default.
func (p *parser) featureGates(path string) (map[string]bool, error) {
	k, err := p.load(path)
	if err != nil {
		return nil, err
	}
	gates := map[string]bool{}
	for _, f := range k.files {
		ast.Inspect(f, func(n ast.Node) bool {
			v, ok := n.(*ast.ValueSpec)
			if !ok || len(v.Names) != 1 || v.Names[0].Name != "InitFeatureGates" {
				return true
			}
			for _, e := range v.Values[0].(*ast.CompositeLit).Elts {
				kv := e.(*ast.KeyValueExpr)
				def := ""
				ast.Inspect(kv.Value, func(n ast.Node) bool {
					if in, ok := n.(*ast.KeyValueExpr); ok {
						if key, ok := in.Key.(*ast.Ident); ok && key.Name == "Default" {
							def = in.Value.(*ast.Ident).Name
						}
					}
					return true
				})
				gates[kv.Key.(*ast.Ident).Name] = def == "true"
			}
			return false
		})
	}
	return gates, nil
}
