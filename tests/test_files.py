"Files that are written, looked for and read, beyond what their notebook shows"
import json, os, stat
import pytest
from distill_nb.files import check_place, reading, whole_file, write_whole

def test_what_cannot_be_written_leaves_the_file_as_it_was(tmp_path):
    path = write_whole(tmp_path/'a.txt', b'old')
    with pytest.raises(TypeError): write_whole(path, 3)
    assert path.read_bytes() == b'old' and os.listdir(tmp_path) == ['a.txt']
    with pytest.raises(IsADirectoryError): write_whole(tmp_path, b'a folder')

def test_a_link_stays_a_link_and_a_mode_stays(tmp_path):
    path = write_whole(tmp_path/'a.txt', b'old')
    path.chmod(0o600)
    (tmp_path/'link').symlink_to(path)
    write_whole(tmp_path/'link', b'new')
    assert (tmp_path/'link').is_symlink()
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b'new', 0o600)

def test_only_dead_parts_are_cleared(tmp_path):
    (tmp_path/'.tmp-of-the-dead').write_bytes(b'half')
    with whole_file(tmp_path/'a.txt') as f:
        write_whole(tmp_path/'b.txt', b'another')
        f.write(b'newer')
    assert sorted(os.listdir(tmp_path)) == ['a.txt','b.txt'] and (tmp_path/'a.txt').read_bytes() == b'newer'

def test_places(tmp_path):
    notes = tmp_path/'notes.txt'
    notes.write_text('a file')
    assert check_place('out', tmp_path/'new'/'run') == tmp_path/'new'/'run'
    assert check_place('csv', tmp_path/'new'/'table.csv', folder=False) == tmp_path/'new'/'table.csv'
    assert check_place('csv', notes, folder=False) == notes
    (tmp_path/'nowhere').symlink_to(tmp_path/'gone')
    for path,folder,why in [(notes, True, 'it is not a folder'), (notes/'run', True, "notes.txt' is not a folder"),
                            (notes/'run', False, "notes.txt' is not a folder"), (tmp_path/('x'*300), True, 'too long'),
                            (tmp_path, False, 'it is a folder'), (tmp_path/'nowhere', False, 'a link to nothing')]:
        with pytest.raises(ValueError, match=f'`out` must be a place for a .*{why}'): check_place('out', path, folder)
    assert sorted(o.name for o in tmp_path.iterdir()) == ['notes.txt','nowhere']

def settings(path):
    with reading(path, 'settings') as p: return json.loads(p.read_text())

def test_reading_names_the_file(tmp_path):
    os.mkfifo(tmp_path/'pipe')
    with pytest.raises(FileNotFoundError, match='there is no settings'): settings(tmp_path/'nothing')
    with pytest.raises(ValueError, match='is a folder'): settings(tmp_path)
    with pytest.raises(ValueError, match='a pipe'): settings(tmp_path/'pipe')
    for bad in (b'\xff', b'', b'['*100_000):
        with pytest.raises(ValueError, match='a.json'): settings(write_whole(tmp_path/'a.json', bad))
    assert settings(write_whole(tmp_path/'a.json', '[1]')) == [1]
