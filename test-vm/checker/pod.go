package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kbuild/kbuild/test-vm/guest"
)

const (
	podNamespace = "kbuild-test"
	podName      = "answer"
)

// pod makes a Deployment and a Service, unless they are there, and asks the
// Service. The image is CoreDNS, because every cluster has it baked in; its
// health plugin is the smallest HTTP server in it.
func pod(ctx context.Context, a guest.PodArgs) (guest.Pod, error) {
	var r guest.Pod
	boot, err := bootTime()
	if err != nil {
		return r, err
	}
	k, err := connect()
	if err != nil {
		return r, err
	}
	if err := makePod(ctx, k, a.Image); err != nil {
		return r, err
	}
	svc, err := k.core.Services(podNamespace).Get(ctx, podName, metav1.GetOptions{})
	if err != nil {
		return r, err
	}
	r.ClusterIP = svc.Spec.ClusterIP
	l, err := k.core.Pods(podNamespace).List(ctx, metav1.ListOptions{LabelSelector: "app=" + podName})
	if err != nil {
		return r, err
	}
	r.Waiting = "no pod yet"
	for _, p := range l.Items {
		r.Phase, r.PodIP = string(p.Status.Phase), p.Status.PodIP
		if p.Spec.HostNetwork {
			return r, errors.New("the pod has the node's network")
		}
		r.Waiting = podMissing(&p, boot)
	}
	if r.Waiting != "" {
		return r, nil
	}
	if r.Answer, err = get(ctx, "http://"+bracket(r.ClusterIP)+"/health"); err != nil {
		r.Waiting = err.Error()
	}
	return r, nil
}

func bracket(ip string) string {
	if strings.Contains(ip, ":") {
		return "[" + ip + "]"
	}
	return ip
}

func get(ctx context.Context, url string) (string, error) { return getOver(ctx, nil, url) }

// getOver is get with connections made by dial, where it is not nil.
func getOver(ctx context.Context, dial func(context.Context, string, string) (net.Conn, error), url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := (&http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return string(b), err
}

func makePod(ctx context.Context, k *kube, image string) error {
	return makeAnswering(ctx, k, podName, func(meta metav1.ObjectMeta) error {
		one := int32(1)
		_, err := k.apps.Deployments(podNamespace).Create(ctx, &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{
			Replicas: &one, Selector: &metav1.LabelSelector{MatchLabels: meta.Labels}, Template: answerPod(meta, image)}}, metav1.CreateOptions{})
		return err
	})
}

// makeAnswering makes pods that answer: their configuration, the workload that
// they belong to and a Service, all under one name. What exists already is left
// alone.
func makeAnswering(ctx context.Context, k *kube, name string, workload func(meta metav1.ObjectMeta) error) error {
	meta := metav1.ObjectMeta{Name: name, Namespace: podNamespace, Labels: map[string]string{"app": name}}
	_, errNs := k.core.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: podNamespace}}, metav1.CreateOptions{})
	_, errCm := k.core.ConfigMaps(podNamespace).Create(ctx, answerConfig(meta), metav1.CreateOptions{})
	errWork := workload(meta)
	_, errSvc := k.core.Services(podNamespace).Create(ctx, &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{
		Selector: meta.Labels, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}},
	}}, metav1.CreateOptions{})
	var errs []error
	for _, err := range []error{errNs, errCm, errWork, errSvc} {
		if err != nil && !apierrors.IsAlreadyExists(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// answerConfig is the Corefile of a pod that serves CoreDNS's health page.
func answerConfig(meta metav1.ObjectMeta) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"Corefile": ".:5353 {\n    whoami\n    health :8080\n}\n"}}
}

// answerPod is that pod. It may run on control planes.
func answerPod(meta metav1.ObjectMeta, image string) corev1.PodTemplateSpec {
	grace := int64(1)
	return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: meta.Labels}, Spec: corev1.PodSpec{
		TerminationGracePeriodSeconds: &grace,
		Tolerations:                   []corev1.Toleration{{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}},
		Containers: []corev1.Container{{
			Name: "answer", Image: image, ImagePullPolicy: corev1.PullNever, Args: []string{"-conf", "/etc/coredns/Corefile"},
			VolumeMounts:   []corev1.VolumeMount{{Name: "config", MountPath: "/etc/coredns"}},
			ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/health", Port: intstr.FromInt32(8080)}}, PeriodSeconds: 2},
		}},
		Volumes: []corev1.Volume{{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: meta.Name}}}}},
	}}
}
