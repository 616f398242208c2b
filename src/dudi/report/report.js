const choice = document.getElementById("language");
if (choice) {
  choice.parentElement.hidden = false;
  choice.addEventListener("change", () => {
    for (const sample of document.querySelectorAll(".sample")) {
      sample.hidden = choice.value !== "" && sample.dataset.language !== choice.value;
    }
  });
}
