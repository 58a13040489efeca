"""Ten tasks of a newcomer: how to get to the answer from the front page of the site, by at most three clicks (texts of links)
or one search, the page and section that has it, and words of the answer"""

tasks = [
    dict(task='Install it and see it run', clicks=[],
         page='index.html#try-it', words='pip install . && distill_nb demo'),
    dict(task='Find out which of my models suits my images', clicks=['Reading a ranking', 'How sure is it?'],
         page='tutorials/reading_a_ranking.html#how-sure-is-it', words='plot_ranking(rank)'),
    dict(task='Use weights of my own', clicks=['Bring your own sources', 'A checkpoint'],
         page='tutorials/own_sources.html#a-checkpoint', words='Source.from_checkpoint('),
    dict(task='Distil into a small student', clicks=['Quick start', 'Let them all teach'],
         page='tutorials/quick_start.html#let-them-all-teach', words='learn = distill_learner('),
    dict(task='Train in half precision (fp16)', clicks=['How do I …?', 'How do I train in half precision (fp16, bf16)?'],
         page='guide/how_do_i.html#how-do-i-train-in-half-precision-fp16-bf16', words='to_fp16'),
    dict(task='Go on after a stop', search='resume',
         page='resume.html#the-callback', words='Resume'),
    dict(task='Get an ONNX file', clicks=['From student to device', 'ONNX'],
         page='tutorials/to_device.html#onnx', words="to_onnx(learn, folder/'student.onnx')"),
    dict(task='Choose the images to label next', clicks=['From no label to a student', 'Which images first?'],
         page='tutorials/no_label.html#which-images-first', words='choose_images('),
    dict(task='Judge a student where some classes are rarer than others', search='balanced',
         page='quality.html#accuracy-and-balanced-accuracy', words='the mean of the classes’ recalls'),
    dict(task='Know what a term means', clicks=['Glossary'],
         page='glossary.html#glossary', words='predicts for an image without a label'),
]
