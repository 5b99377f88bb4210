package metadata

import (
	"fmt"
	"strings"
)

// sources are the places to look, in order: what was given to this machine by
// hand before what its platform has for it, and what lies on the machine
// before what must be fetched.
func sources() []source {
	s := []source{
		{
			name:  "systemd credential",
			give:  "`-smbios type=11,value=io.systemd.credential.binary:kbuild.userdata=BASE64`, or `-fw_cfg name=opt/io.systemd.credentials/kbuild.userdata,file=FILE`",
			limit: "1 MiB, less through SMBIOS where the firmware's tables are smaller",
			find:  credential,
		},
		{
			name:  "URL on the kernel command line",
			give:  "`kbuild.userdata=https://HOST/PATH`, or `http://` with `kbuild.userdata.sha256=HEX` beside it",
			limit: "1 MiB",
			find:  fromURL,
		},
		{
			name:  "file",
			give:  "`" + userDataFile + "` in the image, or written there by Ignition",
			limit: "1 MiB",
			find:  fromFile,
		},
		{
			name:  "NoCloud volume",
			give:  "a volume labelled `cidata` (iso9660 or vfat) with the file `user-data`",
			limit: "1 MiB",
			find:  noCloud,
		},
		{
			name:  "OpenStack config drive",
			give:  "`openstack server create --config-drive true --user-data FILE`: a volume labelled `config-2` (iso9660 or vfat) with the file `openstack/latest/user_data`",
			limit: "65,535 bytes after base64",
			find:  configDrive,
		},
		{
			name:  "VMware guestinfo",
			give:  "`guestinfo.userdata` and `guestinfo.userdata.encoding` (`base64` or `gzip+base64`) in the machine's extra configuration",
			limit: "64 KiB as encoded",
			find:  vmware,
		},
	}
	for _, c := range clouds() {
		s = append(s, source{c.name, c.give, c.limit, c.find})
	}
	return s
}

// Table is the table of the sources as Markdown, for docs/user-data.md.
func Table() string {
	var b strings.Builder
	b.WriteString("| source | how to give it | limit |\n|---|---|---|\n")
	for _, s := range sources() {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", s.name, s.give, s.limit)
	}
	return b.String()
}
