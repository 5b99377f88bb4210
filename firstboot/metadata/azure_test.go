package metadata

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"
)

// ovf is the file as Azure writes it.
func ovf(customData string) string {
	return `<?xml version="1.0" encoding="utf-8"?>
<ns0:Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:ns0="http://schemas.dmtf.org/ovf/environment/1" xmlns:ns1="http://schemas.microsoft.com/windowsazure" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <ns1:ProvisioningSection>
    <ns1:Version>1.0</ns1:Version>
    <ns1:LinuxProvisioningConfigurationSet>
      <ns1:ConfigurationSetType>LinuxProvisioningConfiguration</ns1:ConfigurationSetType>
      <ns1:UserName>someone</ns1:UserName>
      <ns1:UserPassword>REDACTED</ns1:UserPassword>
      <ns1:DisableSshPasswordAuthentication>false</ns1:DisableSshPasswordAuthentication>
      <ns1:HostName>node-7</ns1:HostName>
      ` + customData + `
    </ns1:LinuxProvisioningConfigurationSet>
  </ns1:ProvisioningSection>
  <ns1:PlatformSettingsSection>
    <ns1:Version>1.0</ns1:Version>
    <ns1:PlatformSettings><ns1:KmsServerHostname>kms.core.windows.net</ns1:KmsServerHostname></ns1:PlatformSettings>
  </ns1:PlatformSettingsSection>
</ns0:Environment>
`
}

func customData(text string) string {
	return "<ns1:CustomData>" + base64.StdEncoding.EncodeToString([]byte(text)) + "</ns1:CustomData>"
}

// udfDisc is a disc with a UDF file system of these files. Beside it is an ISO
// 9660 one, as genisoimage has no other way; without is true blots it out, so
// that the disc is as Azure's.
func udfDisc(t testing.TB, files map[string]string, without bool) string {
	t.Helper()
	b := []byte(genisoimage(t, files, "-udf", "-V", "rd_rdfe_stable.161212-1209"))
	if without {
		for i := 16; bytes.Equal(b[i*isoSector+1:][:5], []byte("CD001")); i++ {
			clear(b[i*isoSector:][:isoSector])
		}
	}
	return string(b)
}

func TestUDF(t *testing.T) {
	files := map[string]string{
		"ovf-env.xml": strings.Repeat("<!-- long -->\n", 1000), "a/b/c": "deep", "empty": "", "a name with ümlauts and some length, so that it spans": "x",
	}
	for without, image := range map[bool]string{false: udfDisc(t, files, false), true: udfDisc(t, files, true)} {
		var want []string
		for name := range files {
			want = append(want, name)
		}
		got, err := readVolume(strings.NewReader(image), append(want, "a", "a/b", "nothing", "ovf-env.xml/x")...)
		if err != nil || len(got) != len(files) {
			t.Errorf("without ISO 9660 %v: %d files, %v", without, len(got), err)
		}
		for name, text := range files {
			if string(got[name]) != text {
				t.Errorf("without ISO 9660 %v: %s has %d bytes, want %d", without, name, len(got[name]), len(text))
			}
		}
	}
}

// A checksum is any byte, 0 too: each descriptor gets that one by its tag's
// reserved byte (3/7.2).
func TestUDFChecksumZero(t *testing.T) {
	whole := udfDisc(t, map[string]string{"ovf-env.xml": ovf(customData(document))}, true)
	changed := 0
	for at := 0; at+udfBlock <= len(whole); at += udfBlock {
		if _, _, err := udfTag(strings.NewReader(whole), int64(at/udfBlock)); err != nil {
			continue
		}
		b := []byte(whole)
		b[at+5] -= b[at+4]
		b[at+4] = 0
		changed++
		f, err := readAzureDisc(bytes.NewReader(b))
		if err != nil || string(f.UserData()) != document {
			t.Errorf("block %d, tag %d: %q, %v", at/udfBlock, b[at], f.UserData(), err)
		}
	}
	if changed < 6 { // anchor, partition, logical volume, file set, root, file
		t.Errorf("the disc has %d descriptors", changed)
	}
}

// The first byte of each block changed and the rest cut off: files or an error.
func TestUDFDamaged(t *testing.T) {
	whole := udfDisc(t, map[string]string{"ovf-env.xml": ovf(customData(document))}, true)
	for at := 256 * udfBlock; at < len(whole) && at < 300*udfBlock; at += udfBlock {
		b := []byte(whole)
		b[at] ^= 0x55
		for _, image := range [][]byte{b, b[:at]} {
			f, err := readAzureDisc(bytes.NewReader(image))
			if err == nil && string(f.UserData()) != document {
				t.Errorf("block %d: %q", at/udfBlock, f.UserData())
			}
		}
	}
}

// customData on the disc counts where the service has no userData, and what is
// in another drive does not.
func TestAzure(t *testing.T) {
	const name = "Azure metadata service"
	without := services("")[name]
	disc := map[string]string{"ovf-env.xml": ovf(customData(document))}
	for kind, image := range map[string]string{"UDF": udfDisc(t, disc, true), "both": udfDisc(t, disc, false), "ISO 9660": iso(t, disc, true)} {
		files := map[string]string{"/dev/sr0": iso(t, map[string]string{"setup.txt": "tools"}, true), "/dev/sr1": image, dmi + "chassis_asset_tag": without.marks[dmi+"chassis_asset_tag"]}
		f, err := Find(t.Context(), online(t, files, without, v4).Host)
		if err != nil || string(f.UserData()) != document || f.Source != "Azure custom-data" || f.Hostname != "node-7" {
			t.Errorf("%s: %q from %q, %q, %v", kind, f.UserData(), f.Source, f.Hostname, err)
		}
		other := document + "name: other\n"
		f, err = Find(t.Context(), online(t, files, services(other)[name], v4).Host)
		if err != nil || string(f.UserData()) != other || f.Source != "Azure user-data" {
			t.Errorf("%s, with userData too: %q from %q, %v", kind, f.UserData(), f.Source, err)
		}
		// Nobody looks into drives on other machines.
		delete(files, dmi+"chassis_asset_tag")
		if f, err := Find(t.Context(), online(t, files, nil).Host); err != nil || f.Source != "" {
			t.Errorf("%s, not on Azure: %+v %v", kind, f, err)
		}
	}
	marks := map[string]string{dmi + "chassis_asset_tag": without.marks[dmi+"chassis_asset_tag"]}
	if f, err := Find(t.Context(), online(t, marks, without, v4).Host); err != nil || f.Source != "" {
		t.Errorf("no disc: %+v %v", f, err)
	}
	marks["/dev/sr0"] = udfDisc(t, map[string]string{"ovf-env.xml": "<html>"}, true)
	if _, err := Find(t.Context(), online(t, marks, without, v4).Host); err == nil || !strings.Contains(err.Error(), "/dev/sr0: file ovf-env.xml") {
		t.Errorf("a bad disc: %v", err)
	}
}

func TestOVF(t *testing.T) {
	for name, c := range map[string]struct{ xml, data, err string }{
		"whole":          {ovf(customData(document)), document, ""},
		"line breaks":    {ovf("<ns1:CustomData>\n YTog\n Ygo=\n</ns1:CustomData>"), "a: b\n", ""},
		"none":           {ovf(""), "", ""},
		"empty":          {ovf("<ns1:CustomData />"), "", ""},
		"no base64":      {ovf("<ns1:CustomData>a: b</ns1:CustomData>"), "", "CustomData: it is not the base64"},
		"cut":            {ovf("")[:400], "", "not the XML"},
		"not XML":        {"a: b\n", "", "not the XML"},
		"not ours":       {`<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1"><PropertySection/></Environment>`, "", "no LinuxProvisioningConfigurationSet"},
		"Windows":        {strings.ReplaceAll(ovf(""), "LinuxProvisioning", "WindowsProvisioning"), "", "no LinuxProvisioningConfigurationSet"},
		"wrong name":     {`<a/>`, "", "not the XML"},
		"entities (XXE)": {`<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>` + ovf("<ns1:CustomData>&e;</ns1:CustomData>"), "", "not the XML"},
	} {
		data, _, err := parseOVF([]byte(c.xml))
		if string(data) != c.data || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %q %v", name, data, err)
		}
	}
}

func FuzzOVF(f *testing.F) {
	for _, c := range []string{"", customData(document), "<ns1:CustomData />", "<ns1:CustomData>%</ns1:CustomData>", customData(document) + customData("a")} {
		f.Add([]byte(ovf(c)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if data, _, err := parseOVF(b); err == nil && len(data) > len(b) {
			t.Errorf("%d bytes out of %d", len(data), len(b))
		}
	})
}
