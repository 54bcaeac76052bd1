package report

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func service(port int32, note string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "bar-paris", Labels: map[string]string{"a": "1", "b": "true", "c": "x"},
			Annotations: map[string]string{"note": note}, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m"}},
		},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, Ports: []corev1.ServicePort{{Name: "http", Port: port, Protocol: corev1.ProtocolTCP}, {Name: "more", Port: 99}}},
	}
}

func TestDiff(t *testing.T) {
	const created = `@@ -0,0 +1,19 @@
+metadata:
+  annotations:
+    note: "two words"
+  labels:
+    a: "1"
+    b: "true"
+    c: x
+  name: bar-paris
+  namespace: shop
+spec:
+  ports:
+  - name: http
+    port: 80
+    protocol: TCP
+    targetPort: 0
+  - name: more
+    port: 99
+    targetPort: 0
+  type: ClusterIP
`
	for name, test := range map[string]struct {
		before, after any
		want          string
	}{
		"created": {nil, service(80, "two words"), created},
		"one line": {service(80, "x"), service(81, "x"), `@@ -10,7 +10,7 @@
 spec:
   ports:
   - name: http
-    port: 80
+    port: 81
     protocol: TCP
     targetPort: 0
   - name: more
`},
		"two places": {map[string]any{"a": 1, "b": []int{1, 2, 3, 4, 5, 6, 7}, "c": 1}, map[string]any{"a": 2, "b": []int{1, 2, 3, 4, 5, 6, 7}, "d": map[string]int{}},
			"@@ -1,4 +1,4 @@\n-a: 1\n+a: 2\n b:\n - 1\n - 2\n@@ -7,4 +7,4 @@\n - 5\n - 6\n - 7\n-c: 1\n+d: {}\n"},
		"nothing":   {service(80, "x"), service(80, "x"), ""},
		"a hostile": {nil, map[string]string{"note": "x\x1b[2J\n+ forged\u202e"}, "@@ -0,0 +1,1 @@\n+note: \"x\\u001b[2J\\n+ forged\ufffd\"\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Diff(test.before, test.after); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
}
