addEventListener("load", () => {
  if (window.MathJax && !MathJax.Hub)
    MathJax.Hub = {Queue: a => MathJax.typesetPromise && MathJax.typesetPromise([a[2]])}
})
