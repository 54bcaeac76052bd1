package status

import "slices"

// pager has the links between the pages of the rows.
type pager struct {
	First, Last, Total int // of the rows shown, from 1
	Prev, Next         string
	Links              []pageLink // empty: there is one page
}

// pageLink is a link to a page; number 0 is the gap for those left out.
type pageLink struct {
	Number  int
	Link    string
	Current bool
}

// newPager links the first and the last page and those around the one shown.
func newPager(f filter, at, pages, total int) pager {
	link := func(page int) string {
		to := f
		to.Page = page
		return to.link()
	}
	p := pager{First: min((at-1)*rowsPerPage+1, total), Last: min(at*rowsPerPage, total), Total: total}
	if pages == 1 {
		return p
	}
	if at > 1 {
		p.Prev = link(at - 1)
	}
	if at < pages {
		p.Next = link(at + 1)
	}
	numbers := []int{1, at - 1, at, at + 1, pages}
	numbers = slices.DeleteFunc(numbers, func(n int) bool { return n < 1 || n > pages })
	slices.Sort(numbers)
	numbers = slices.Compact(numbers)
	for i, n := range numbers {
		if i > 0 {
			switch gap := n - numbers[i-1]; {
			case gap == 2: // one page takes no more space than a gap
				p.Links = append(p.Links, pageLink{Number: n - 1, Link: link(n - 1)})
			case gap > 2:
				p.Links = append(p.Links, pageLink{})
			}
		}
		p.Links = append(p.Links, pageLink{n, link(n), n == at})
	}
	return p
}
