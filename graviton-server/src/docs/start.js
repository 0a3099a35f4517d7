// Starts the viewer. It loads nothing but the document of this server, and keeps no token after the page is closed.
SwaggerUIBundle({
  url: "api/openapi.json",
  dom_id: "#viewer",
  validatorUrl: null,
  defaultModelsExpandDepth: 0,
  // The viewer grows above the table of errors: go to the error that the address names once it is there.
  onComplete: () => document.getElementById(location.hash.slice(1))?.scrollIntoView(),
});
