// Command peer is a Go server to compare daemonset-warden with. It answers the same calls with the usual Go libraries:
// the webhooks use controller-runtime, and the extender decodes with encoding/json. Both use upstream's types and the rules
// that the benchmark's requests need.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	extender "k8s.io/kube-scheduler/extender/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

func main() {
	port := flag.Int("port", 0, "port on 127.0.0.1")
	certificates := flag.String("cert-dir", "", "folder with tls.crt and tls.key")
	flag.Parse()
	log.SetLogger(zap.New(zap.WriteTo(io.Discard)))

	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme} {
		if err := add(scheme); err != nil {
			fail(err)
		}
	}
	decoder := admission.NewDecoder(scheme)
	server := webhook.NewServer(webhook.Options{Host: "127.0.0.1", Port: *port, CertDir: *certificates})
	server.Register("/mutate", &admission.Webhook{Handler: mutator{decoder}})
	server.Register("/validate", &admission.Webhook{Handler: validator{decoder}})
	server.Register("/bind", &admission.Webhook{Handler: binder{decoder}})
	server.Register("/scheduler/filter", http.HandlerFunc(filter))
	if err := server.Start(context.Background()); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

type mutator struct{ decoder admission.Decoder }

// Handle adds node affinity and tolerations to a daemon pod. The patch is a diff of the marshalled pod, as in most Go webhooks.
func (m mutator) Handle(_ context.Context, request admission.Request) admission.Response {
	pod := &corev1.Pod{}
	if err := m.decoder.Decode(request, pod); err != nil {
		return admission.Errored(http.StatusBadRequest, err)
	}
	if owner := metav1.GetControllerOf(pod); owner == nil || owner.Kind != "DaemonSet" || pod.Spec.NodeName == "" {
		return admission.Allowed("")
	}
	if pod.Spec.Affinity == nil {
		pod.Spec.Affinity = &corev1.Affinity{}
	}
	if pod.Spec.Affinity.NodeAffinity == nil {
		pod.Spec.Affinity.NodeAffinity = &corev1.NodeAffinity{}
	}
	name := corev1.NodeSelectorRequirement{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{pod.Spec.NodeName}}
	pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{name}}},
	}
	for _, taint := range []struct {
		key    string
		effect corev1.TaintEffect
	}{
		{corev1.TaintNodeNotReady, corev1.TaintEffectNoExecute},
		{corev1.TaintNodeUnreachable, corev1.TaintEffectNoExecute},
		{corev1.TaintNodeDiskPressure, corev1.TaintEffectNoSchedule},
		{corev1.TaintNodeMemoryPressure, corev1.TaintEffectNoSchedule},
		{corev1.TaintNodePIDPressure, corev1.TaintEffectNoSchedule},
		{corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule},
	} {
		toleration := corev1.Toleration{Key: taint.key, Operator: corev1.TolerationOpExists, Effect: taint.effect}
		found := false
		for _, own := range pod.Spec.Tolerations {
			found = found || own.MatchToleration(&toleration)
		}
		if !found {
			pod.Spec.Tolerations = append(pod.Spec.Tolerations, toleration)
		}
	}
	pod.Spec.NodeName = ""
	marshalled, err := json.Marshal(pod)
	if err != nil {
		return admission.Errored(http.StatusInternalServerError, err)
	}
	return admission.PatchResponseFromRaw(request.Object.Raw, marshalled)
}

type validator struct{ decoder admission.Decoder }

// Handle checks the selector and the restart policy of a DaemonSet.
func (v validator) Handle(_ context.Context, request admission.Request) admission.Response {
	daemonSet := &appsv1.DaemonSet{}
	if err := v.decoder.Decode(request, daemonSet); err != nil {
		return admission.Errored(http.StatusBadRequest, err)
	}
	selector, err := metav1.LabelSelectorAsSelector(daemonSet.Spec.Selector)
	if err != nil {
		return admission.Denied(err.Error())
	}
	template := daemonSet.Spec.Template
	if selector.Empty() || !selector.Matches(labels.Set(template.Labels)) {
		return admission.Denied("`selector` does not match template `labels`")
	}
	if template.Spec.RestartPolicy != "" && template.Spec.RestartPolicy != corev1.RestartPolicyAlways {
		return admission.Denied("restartPolicy must be Always")
	}
	return admission.Allowed("")
}

type binder struct{ decoder admission.Decoder }

// Handle decodes the Binding and allows it: the least that a webhook for pods/binding can do.
func (b binder) Handle(_ context.Context, request admission.Request) admission.Response {
	binding := &corev1.Binding{}
	if err := b.decoder.Decode(request, binding); err != nil {
		return admission.Errored(http.StatusBadRequest, err)
	}
	if binding.Target.Name == "" {
		return admission.Denied("a Binding needs a target")
	}
	return admission.Allowed("")
}

// filter lets a daemon pod onto its target only, and every other pod everywhere.
func filter(writer http.ResponseWriter, request *http.Request) {
	args := extender.ExtenderArgs{}
	if err := json.NewDecoder(request.Body).Decode(&args); err != nil {
		http.Error(writer, err.Error(), http.StatusBadRequest)
		return
	}
	result := extender.ExtenderFilterResult{FailedAndUnresolvableNodes: extender.FailedNodesMap{}}
	owner := metav1.GetControllerOf(args.Pod)
	passes := func(name string) bool {
		return owner == nil || owner.Kind != "DaemonSet" || args.Pod.Spec.NodeName == name
	}
	if args.NodeNames != nil {
		names := make([]string, 0, len(*args.NodeNames))
		for _, name := range *args.NodeNames {
			if passes(name) {
				names = append(names, name)
			} else {
				result.FailedAndUnresolvableNodes[name] = "node(s) were not the daemon pod's target"
			}
		}
		result.NodeNames = &names
	} else {
		nodes := corev1.NodeList{}
		for _, node := range args.Nodes.Items {
			if passes(node.Name) {
				nodes.Items = append(nodes.Items, node)
			} else {
				result.FailedAndUnresolvableNodes[node.Name] = "node(s) were not the daemon pod's target"
			}
		}
		result.Nodes = &nodes
	}
	writer.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(writer).Encode(&result); err != nil {
		http.Error(writer, err.Error(), http.StatusInternalServerError)
	}
}
