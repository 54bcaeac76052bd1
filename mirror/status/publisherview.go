package status

import "html/template"

// targetView is what the template shows of a Target.
type targetView struct {
	*Target
	Tone   string
	Shown  list[string] // listeners
	Refuse string       // why some are not served
}

func newPublisherView(p *Publisher, f filter) *view {
	v := &view{Page: p.page(), Words: publisherWords, Style: template.CSS(styleCSS), Filter: f, Total: len(p.Services)}
	v.addTargets(p)
	v.addGroups(v.groupServices(p))
	v.Services = addRows(v, choose[*Service](f, p.Services))
	switch {
	case len(v.Services) > 0:
	case v.Total > 0:
		v.Empty = "No exported Service matches this filter."
	default:
		v.Empty = "No Service is exported. Unless --export-selector is set, label one:"
		v.Hint = "kubectl label service NAME service-mirror.io/exported=true"
	}
	return v
}

// addTargets adds the targets, and says how all is.
func (v *view) addTargets(p *Publisher) {
	unhealthy, down := 0, 0
	for i := range p.Targets {
		t := &p.Targets[i]
		shown := targetView{Target: t, Tone: tone(t.State), Refuse: t.refused()}
		switch {
		case t.State == Down:
			down++
		case !t.healthy():
			unhealthy++
			if t.State == Up {
				shown.Tone = "warn"
			}
		}
		shown.Shown = newList(textsOf(t.Listeners), addressesAt)
		v.Targets = append(v.Targets, shown)
	}
	for i := range p.Services {
		severity := p.Services[i].severity()
		if v.bySeverity[severity]++; severity != fine {
			v.Unhealthy++
		}
	}
	var lost []clause
	if down > 0 {
		lost = append(lost, clause{"bad", noun(down, "target") + verb(down, " is", " are") + " down"})
	}
	v.headline(lost, unhealthy)
	switch {
	case !v.Synced || down+unhealthy+v.Unhealthy > 0:
	case v.Total == 0:
		v.say("off", "Nothing is exported")
	default:
		v.say(v.Tone, "Everything is published")
	}
	v.notice()
}
