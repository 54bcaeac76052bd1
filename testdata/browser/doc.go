// Package browser opens the status page in a real browser, headless Chromium, at
// no, three and ten thousand mirrors, light and dark, wide and narrow, and checks
// what only a browser can tell. It is a module of its own: the product needs none
// of this.
//
// The browser is the one that CHROMIUM names, else chromium; setup.sh installs
// it. Screenshots are written where SCREENSHOTS says, for people to look at.
package browser
