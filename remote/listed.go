package remote

import corev1 "k8s.io/api/core/v1"

// ListedView is the view of exported Services, with what decides about their gateway ports, that were listed once and
// are not followed.
func ListedView(exported []*corev1.Service, gateways Gateways) View {
	services := NewInformer(&ListWatch{}, &corev1.Service{}, func(svc *corev1.Service) *corev1.Service { return svc })
	services.Index(ByClaim, Claims)
	for _, svc := range exported {
		must(services.GetIndexer().Add(Encode(svc)))
	}
	return View{Services: Services{services}, Gateways: gateways}
}

// ListedRecords are the records of a namespace that were listed once, likewise; known tells whether they could be.
func ListedRecords(namespace string, listed []*corev1.ConfigMap, known bool) *Records {
	informer := NewInformer(&ListWatch{}, &corev1.ConfigMap{}, trimRecord)
	records := NewRecords(namespace, informer, func() bool { return known })
	for _, configMap := range listed {
		must(informer.GetIndexer().Add(Encode(configMap)))
		records.Changed(configMap.Name, configMap)
	}
	return records
}
