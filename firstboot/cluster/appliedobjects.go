package cluster

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/client-go/kubernetes"
)

// The objects of each part, as they were applied, lie in a Secret that is named
// like the record of their digests: a baked manifest may hold Secrets. Each is
// compressed JSON of a Before; definitions of kinds are long.

// appliedObjects returns what is recorded; nothing recorded is an empty map.
func appliedObjects(ctx context.Context, c kubernetes.Interface) (map[string][]byte, error) {
	s, err := c.CoreV1().Secrets(metav1.NamespaceSystem).Get(ctx, appliedName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read which objects are applied: %w", err)
	}
	return s.Data, nil
}

// recordObjects notes the objects of a part. Without a note, as where they are
// too many for one, a later image applies the part whole.
func recordObjects(ctx context.Context, c kubernetes.Interface, log *slog.Logger, part string, objs Before) error {
	if objs == nil {
		return nil
	}
	packed, err := pack(objs)
	if err == nil {
		err = patchObjects(ctx, c, part, packed)
	}
	if apierrors.IsInvalid(err) || apierrors.IsRequestEntityTooLargeError(err) {
		log.Warn("the objects are too many to be recorded: another image will apply them all again, over what people have changed", slog.String("part", part), slog.Any("error", err))
		err = patchObjects(ctx, c, part, nil)
	}
	if err != nil {
		return fmt.Errorf("cannot record the objects of %s: %w", part, err)
	}
	return nil
}

// patchObjects sets the note of one part; nil removes it.
func patchObjects(ctx context.Context, c kubernetes.Interface, part string, packed []byte) error {
	secrets := c.CoreV1().Secrets(metav1.NamespaceSystem)
	patch, err := json.Marshal(map[string]any{"data": map[string][]byte{part: packed}})
	if err != nil {
		return err
	}
	_, err = secrets.Patch(ctx, appliedName, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: Manager})
	if apierrors.IsNotFound(err) {
		_, err = secrets.Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: appliedName, Namespace: metav1.NamespaceSystem},
			Type:       corev1.SecretTypeOpaque,
			Data:       map[string][]byte{part: packed},
		}, metav1.CreateOptions{FieldManager: Manager})
		if apierrors.IsAlreadyExists(err) { // another part was quicker
			_, err = secrets.Patch(ctx, appliedName, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: Manager})
		}
	}
	return err
}

func pack(b Before) ([]byte, error) {
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	if err := json.NewEncoder(z).Encode(b); err != nil {
		return nil, err
	}
	err := z.Close()
	return buf.Bytes(), err
}

// unpack reads what pack has written; what cannot be read is not known.
func unpack(packed []byte) (b Before) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil
	}
	text, err := io.ReadAll(z)
	if err != nil || utiljson.Unmarshal(text, &b) != nil {
		return nil
	}
	return b
}
