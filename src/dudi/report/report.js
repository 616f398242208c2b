for (const filter of document.querySelectorAll(".filter")) {
  const choice = filter.querySelector("select");
  const apply = () => {
    for (const sample of filter.closest("section").querySelectorAll(".sample")) {
      sample.hidden = choice.value !== "" && sample.dataset.language !== choice.value;
    }
  };
  filter.hidden = false;
  choice.addEventListener("change", apply);
  apply();
}
