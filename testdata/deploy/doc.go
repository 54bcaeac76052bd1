// Package deploy tests what is in deploy/ and what becomes of it: the image is
// built and its binary run, every manifest is applied as it is shipped to real API
// servers, clusters are linked as a user would, and the daemon then has to do its work
// with just the ServiceAccounts, arguments and environment that those give it.
package deploy
