package docs

import "github.com/spf13/cobra"

// Examples are the examples in --help of each command below root, as documents
// of one block.
func Examples(root *cobra.Command) []Document {
	var all []Document
	if root.HasExample() {
		b := Block{File: root.CommandPath() + " --help", Line: 1, Lang: "sh", Text: root.Example + "\n"}
		all = append(all, Document{File: b.File, Blocks: []Block{b}})
	}
	for _, sub := range root.Commands() {
		all = append(all, Examples(sub)...)
	}
	return all
}
