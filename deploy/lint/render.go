// render CHART [NAME=VALUE…]: prints a chart's manifests with its default values, for checks on a machine without Helm.
//
// It does what this chart needs of Helm: Go's templates, sprig's functions, `include`, `toYaml` and the objects Values,
// Release and Chart. It is no replacement for `helm template`, and refuses what it does not know.
package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig"
	"gopkg.in/yaml.v3"
)

func read(path string) map[string]interface{} {
	text, err := os.ReadFile(path)
	fail(err)
	values := map[string]interface{}{}
	fail(yaml.Unmarshal(text, &values))
	return values
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "render:", err)
		os.Exit(1)
	}
}

// set writes a value at a dotted path: `drills.enabled=false`.
func set(values map[string]interface{}, assignment string) {
	name, text, found := strings.Cut(assignment, "=")
	if !found {
		fail(fmt.Errorf("%q is not NAME=VALUE", assignment))
	}
	var value interface{}
	fail(yaml.Unmarshal([]byte(text), &value))
	parts := strings.Split(name, ".")
	for _, part := range parts[:len(parts)-1] {
		below, known := values[part].(map[string]interface{})
		if !known {
			fail(fmt.Errorf("%s: there is no %q", name, part))
		}
		values = below
	}
	values[parts[len(parts)-1]] = value
}

func main() {
	chart := os.Args[1]
	about, values := read(filepath.Join(chart, "Chart.yaml")), read(filepath.Join(chart, "values.yaml"))
	for _, assignment := range os.Args[2:] {
		set(values, assignment)
	}
	root := template.New("chart").Option("missingkey=error")
	functions := sprig.TxtFuncMap()
	functions["toYaml"] = func(value interface{}) string {
		text, err := yaml.Marshal(value)
		fail(err)
		return strings.TrimSuffix(string(text), "\n")
	}
	functions["include"] = func(name string, data interface{}) (string, error) {
		var text bytes.Buffer
		err := root.ExecuteTemplate(&text, name, data)
		return text.String(), err
	}
	root.Funcs(functions)
	files, err := filepath.Glob(filepath.Join(chart, "templates", "*"))
	fail(err)
	sort.Strings(files)
	for _, file := range files {
		text, err := os.ReadFile(file)
		fail(err)
		_, err = root.New(filepath.Base(file)).Parse(string(text))
		fail(err)
	}
	chartObject := map[string]interface{}{"Name": about["name"], "Version": about["version"], "AppVersion": about["appVersion"]}
	release := map[string]interface{}{"Name": "lifeboat", "Namespace": "lifeboat", "Service": "Helm"}
	for _, file := range files {
		if !strings.HasSuffix(file, ".yaml") {
			continue
		}
		fmt.Printf("---\n# %s\n", filepath.Base(file))
		fail(root.ExecuteTemplate(os.Stdout, filepath.Base(file), map[string]interface{}{
			"Values": values, "Release": release, "Chart": chartObject,
		}))
	}
}
