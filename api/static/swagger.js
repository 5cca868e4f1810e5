// null: the validator would be another host's
SwaggerUIBundle({
  url: document.getElementById("api").dataset.document, dom_id: "#api", deepLinking: true, validatorUrl: null
});
