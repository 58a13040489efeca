"Reads settings.ini and hands it to setuptools; nbdev's own settings are in pyproject.toml."
import re
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup

here = Path(__file__).parent
cfg  = ConfigParser(delimiters=['='])
cfg.read(here/'settings.ini', encoding='utf-8')
cfg  = cfg['DEFAULT']
version = re.search(r'__version__\s*=\s*"([^"]+)"', (here/'distill_nb'/'__init__.py').read_text(encoding='utf-8')).group(1)
readme  = here/'README.md'
repo    = 'https://github.com/distill-nb/distill_nb'

def absolute(text):
    "The README as the package's page shows it: links and pictures lead to the repository"
    text = re.sub(r'!\[([^]]*)\]\((?!https?:)', rf'![\1]({repo}/raw/main/', text)
    return re.sub(r'(?<!!)\[([^]]*)\]\((?!https?:|#)', rf'[\1]({repo}/blob/main/', text)

setup(
    version=version,
    install_requires=cfg['requirements'].split(),
    extras_require={n: cfg[f'{n}_requirements'].split() for n in ('dev', 'onnx', 'openvino', 'litert', 'dist', 'hf', 'docs')},
    author=cfg['author'], license=cfg['license'], keywords=cfg['keywords'].split(),
    classifiers=['Development Status :: 3 - Alpha', 'Intended Audience :: Science/Research',
                 'Programming Language :: Python :: 3', 'Topic :: Scientific/Engineering :: Artificial Intelligence'],
    long_description=absolute(readme.read_text(encoding='utf-8')) if readme.exists() else '',
    long_description_content_type='text/markdown',
    packages=['distill_nb', 'distill_nb.estimators'], package_data={'distill_nb': ['zoo/*']}, include_package_data=True)
