// no search: the page's policy would have to allow its worker
const shown = document.getElementById("api");
Redoc.init(shown.dataset.document, { disableSearch: true, expandResponses: "200,202" }, shown);
