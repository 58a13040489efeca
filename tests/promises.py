"""What the page `sturdy` promises, and the test behind each promise: file::test -> (kind, case, what happens). With
$DISTILL_NB_STURDY the tests that passed become rows, `tried` is the number of their cases. `tests/test_bad_input.py`
and `tests/test_entries.py` write rows of their own, one a case."""

promises = {
 # one way to look at an image
 'images::test_a_file_looks_the_same_everywhere': ('looking', 'a file of any mode, writer or depth in training, '
                                                              'validation, pool, sources and `predict`', 'the same pixels'),
 'images::test_greys_are_scaled_by_their_depth': ('looking', 'greys of 8, 12, 16 and 32 bits', 'scaled by the depth of '
                                                                                               'the file, of its '
                                                                                               'values where it tells none'),
 'images::test_greys_of_no_known_depth_are_refused': ('looking', 'greys below 0 or beyond 16 bits', 'refused, by name'),
 'images::test_a_picture_that_comes_out_black_is_told': ('looking', 'a picture that comes out nearly black', 'a warning'),
 'images::test_an_opener_of_ones_own_is_used_by_all': ('looking', 'an opener of your own', 'labelled images, pool, '
                                                                                           'sources and keys use it'),
 'images::test_one_channel_stays_one_channel': ('looking', 'labelled images of one channel', 'so is the pool; sources see colours'),
 'images::test_only_regular_files_are_opened': ('looking', 'a pipe, a device, a socket, a folder in place of an image',
                                                'refused at once, by name'),
 'preprocessing::test_a_description_gives_the_pixels_of_validation': ('looking', 'what validation does, in words '
                                                                                 '(pipelines of fastai, times six '
                                                                                 'shapes of images)', 'the same pixels, to 0.01'),
 'preprocessing::test_what_cannot_be_described_is_named': ('looking', 'export and `from_learner` after transforms that '
                                                                      'words cannot say', 'refused by the name of the '
                                                                                          'transform; nothing is written'),
 'preprocessing::test_an_opener_of_its_own_is_found_out': ('looking', 'export of a Learner with an opener of its own',
                                                           'refused, if it makes other pixels'),
 'preprocessing::test_without_images_what_is_unknown_is_named': ('looking', 'an exported Learner with a transform that '
                                                                            'nobody knows', 'refused by the name of the transform'),
 'preprocessing::test_a_student_of_any_shape_leaves_and_answers': ('looking', 'grey and rectangular students: saved, '
                                                                              'exported, in eight bits, profiled, for '
                                                                              'a hub, predicting', 'the right answers'),
 'preprocessing::test_a_source_is_square_and_in_colour': ('looking', 'a grey or rectangular network as a source',
                                                          'refused when it is made'),
 'preprocessing::test_a_geometry_is_looked_at_where_it_enters': ('looking', "crop_mode='centre', an unknown filter, a "
                                                                            "size that is none", 'refused where it enters'),
 'descriptions::test_a_student_follows_the_size': ('looking', 'students with position embeddings at another size',
                                                   'made for that size, or refused with both sizes before any pass'),
 # pools and labels
 'data::test_what_fastai_and_torch_call_unlabelled_is_a_pool': ('pool', 'what fastai and torch call unlabelled', 'is a pool'),
 'data::test_an_error_about_the_pool_names_the_argument': ('pool', 'tables, tensors and numbers that are no images',
                                                           'refused, naming `unlabeled`'),
 'pool::test_a_pool_that_has_the_labelled_and_the_validation_images': ('pool', 'labelled and validation images within',
        'labelled ones are there once, validation ones are counted in a warning'),
 'pool::test_unreadable_images_of_the_pool_can_be_left_out': ('pool', "files that cannot be read, `on_error='skip'`",
                                                              'left out and counted'),
 'data::test_labels_are_looked_at_when_learners_are_made': ('labels', 'a class in validation alone, by five ways to '
                                                                      'make DataLoaders', 'refused before any pass, by class and row'),
 'data::test_a_missing_label_is_named': ('labels', 'a missing label, by four ways', 'refused before any pass, by row'),
 'pool::test_weights_follow_their_images': ('labels', 'weights of images (`WeightedDL`)', 'follow their images'),
 'pool::test_other_loaders_are_carried_along_or_refused_by_name': ('labels', 'loaders of other classes',
        'carried along, or refused by name with a remedy'),
 'labeled::test_a_table_of_any_writer': ('labels', 'tables by pandas, by Excel, without a header', 'images and their classes'),
 'labeled::test_paths_as_tables_have_them': (
        'labels', 'paths of a table: relative, absolute, with backslashes, ids without a suffix', 'the files are found'),
 'labeled::test_files_that_are_not_there_are_counted': (
        'labels', 'rows of a table without a file', 'refused with their number, or left out'),
 'labeled::test_other_targets_are_refused': ('labels', 'several labels per image, numbers or ids as labels of a table',
                                             'refused before any image is opened'),
 'labeled::test_learners_and_rankings_want_one_class': ('labels', 'several labels or numbers, for every learner and for rankings',
                                                        'refused, naming `dls`'),
 'labeled::test_images_that_cannot_be_read_are_skipped_at_every_door': ('pool', "`on_error='skip'` at every door for images",
                                                                        'left out and counted'),
 'fixmatch::test_other_targets_are_refused_before_anything_runs': ('labels', 'several labels or numbers, for FixMatch '
                                                                             'or probes', 'refused, naming `dls`'),
 'descriptions::test_image_towers_have_no_classes': ('labels', "timm's image towers as sources (CLIP, SigLIP, ...)",
                                                     'features without classes'),
 'descriptions::test_a_learner_is_a_classifier_if_its_loss_is_a_softmax': ('labels', 'a Learner as a source, whose '
                                                                                     'loss is no softmax over classes',
                                                                                     'features without classes'),
 # a fit leaves no trace
 'fits::test_a_fit_leaves_no_trace': ('interrupted fit', 'every callback, at every event, by Ctrl-C, an error, or a '
                                                         'Cancel', 'as after a whole fit; the next fit is the same to the last bit'),
 'fits::test_the_next_fit_and_whoever_takes_a_learner': ('interrupted fit', 'saved, exported, copied, pickled, '
                                                                            'validated afterwards',
                                                                            'works; `validate` gives its two numbers'),
 'fits::test_the_average_is_what_an_interrupted_fit_ends_with': ('interrupted fit', 'with an average of the weights '
                                                                                    '(`EMA`)', 'ends with the average'),
 'fits::test_labels_last_rests_by_the_clock': ('interrupted fit', 'in the resting part of `LabelsLast`',
                                               'the next fit rests by its own clock'),
 'fits::test_a_copy_from_the_middle_is_a_learner': ('interrupted fit', 'a student saved from a callback in mid-fit', 'an ordinary student'),
 # identity
 'keys::test_outputs_that_differ_have_two_keys': ('identity', 'networks that differ in attribute, heads, forward, '
                                                              'hook, closure, unsaved buffer, order',
                                                              'two keys; copies and modes have one'),
 'keys::test_another_process_has_the_same_keys': ('identity', 'the same network in another process', 'the same key'),
 'keys::test_what_cannot_be_digested_is_refused_when_the_source_is_made': ('identity', 'what cannot be digested',
        'refused when the source is made, with the remedy'),
 'resume::test_a_changed_argument_is_refused_by_its_name': ('identity', 'each argument of `distill_learner`, '
                                                                        '`fixmatch_learner` and `Learner` changed '
                                                                        'before `Resume` goes on', 'refused by its name'),
 'resume::test_what_does_not_matter_goes_on_to_the_same_end': ('identity', 'arguments that do not matter, changed '
                                                                           'before `Resume` goes on', 'the same weights to the last bit'),
 'resume::test_what_cannot_be_digested_is_refused_before_training': ('identity',
        '`Resume` with what cannot be digested', 'refused before training'),
 'resume::test_a_state_of_another_version_is_refused': ('identity', '`Resume` from a file of another version', 'refused, by name'),
 'bench::test_any_string_is_a_name': ('identity', "targets and methods called '7', 'NA', 'a,b', with newlines", 'no run is made twice'),
 'bench::test_a_changed_setting_is_refused_by_name_and_the_same_is_not': ('identity', 'a suite with a changed '
                                                                                      'function, optimizer, callback '
                                                                                      'or source', 'refused by name; '
                                                                                                   'the same script adds no row'),
 # files
 'descriptions::test_each_field_of_each_file_has_a_type_and_a_range': ('file', "each field of a student's header, a "
                                                                               "manifest, a graph",
                                                                               'values of another type or range are '
                                                                               'refused, by file and field'),
 'descriptions::test_arguments_of_a_network_and_nothing_else': ('file', 'arguments in a header or manifest that are '
                                                                        'not of the network', 'refused; no other file is opened'),
 'descriptions::test_sizes_are_known_before_memory_is_asked_for': ('file', 'sizes that the file does not bear out',
        'refused before memory is asked for'),
 'descriptions::test_a_graph_that_names_other_files_is_refused_wherever_it_does': ('file', 'a graph whose tensors lie '
                                                                                           'in another file',
                                                                                           'refused, wherever in the graph it says so'),
 'descriptions::test_probabilities_are_probabilities': ('file', 'a graph that calls logits probabilities, or the reverse', 'refused'),
 'descriptions::test_what_is_refused_leaves_the_old_file': ('file', 'a graph that differs from its network',
                                                            'refused before it is written; the old file stays'),
 'descriptions::test_a_folder_for_a_hub_holds_one_student': ('file', 'a folder for a hub in which another student was',
                                                             'holds one student'),
 'descriptions::test_eight_bits_of_any_number_of_images': ('file', '`quantize_onnx` by each method, with 1, 17, 33 '
                                                                   'images', 'as with any other number'),
 'store::test_chunks_whose_checksum_is_right': ('file',
                                                'a chunk of the store with the right checksum and wrong content',
                                                'named, removed, computed again'),
 'store::test_anything_for_a_file': ('file', 'any bytes for a file of the store (fuzzed)', 'outputs as without a store'),
 'store::test_anything_for_a_folder': ('file', 'folders, pipes, links in the place of files of the store', 'outputs as without a store'),
 'store::test_data_base_of_files': ('file', 'a data base of files with other tables, types or keys', 'ignored or made again'),
 'store::test_files_that_change_places': ('file', 'two files of one size and time that change places', 'each keeps its own outputs'),
 'store::test_a_resumed_pass_is_a_whole_one': ('fault',
                                               'a pass taken up again, for any sizes of batch, block and chunk',
                                               'the same to the last bit'),
 'store::test_scores_do_not_depend_on_scale_and_offset': ('numbers', 'scores from half precision, features times and '
                                                                     'plus anything', 'as from single precision, to 0.01'),
 'writers::test_full_disk': ('fault', 'a full disk, for every writer', 'the file as it was, and the error names it'),
 'writers::test_killed': ('fault', 'SIGKILL, for every writer', 'the file as it was, or whole and new; the next writer clears up'),
 'bench::test_a_broken_table_is_named': ('file', 'a runs.csv that is empty, cut, foreign, not UTF-8', 'refused, by file'),
 # names
 'names::test_file_names_in_a_store': ('name', 'file names of any bytes that Linux allows: outputs', 'kept'),
 'names::test_file_names_in_a_list': ('name', 'the same in `predict --csv`', 'the same bytes come back'),
 'names::test_names_in_figures': ('name', 'any string in every figure, such as `$\\foo$`', 'drawn as it is'),
 'names::test_names_in_a_report': ('name', 'markup as the name of a method, source or class: the report', 'shown as it is, nothing runs'),
 'names::test_names_in_tables_and_widgets': ('name', 'the same in tables and widgets', 'shown as it is, nothing runs'),
 'descriptions::test_nothing_of_the_users_reaches_the_card_unescaped': ('name', "the same in a hub's model card", 'shown as it is'),
 # numbers and arguments
 'arguments::test_a_rule_refuses_what_breaks_it': ('arguments', 'parameters with a rule, against all that breaks it',
                                                   'refused by the name of the parameter'),
 'distill::test_weights_stay_finite_at_the_edges': ('numbers', 'temperatures and hints at the edges of their range', 'weights are finite'),
 'distill::test_temperatures_beyond_the_range_are_refused_everywhere': ('numbers', 'temperatures beyond, NaN, '
                                                                                   'infinite, 10**400', 'refused by name, everywhere'),
 # the command line
 'cli::test_bad_values': ('command line', 'every option of every command with bad values', 'one line that names it, before anything runs'),
 'cli::test_any_error_is_one_line': ('command line', 'any exception', 'one line, exit code 1'),
 'cli::test_interrupted': ('command line', 'Ctrl-C', 'one line that says how to go on, exit code 130'),
 'cli::test_goes_on': ('command line', 'the same line again', 'says at which epoch it goes on; the log is whole, the '
                                                              'student the same to the byte'),
 'cli::test_a_run_that_has_ended_is_left_alone': ('command line', 'a folder of a finished run', 'refused without `--force`'),
 'cli::test_first_folder_is_the_class': ('command line', 'labelled folders in folders', 'the first below is the class; '
                                                                                        'loose images and splits are refused'),
 'cli::test_no_network': ('command line', 'weights to be fetched, and no network', 'one question, one line'),
 # security
 'images::test_opening_starts_no_program': ('security', 'an image that a program would have to open (EPS, WMF), '
                                                        'whatever its name', 'refused; no program starts'),
 'descriptions::test_no_class_but_lists_and_numbers_is_unpickled': ('security', "a Learner's checkpoint with other "
                                                                                "classes in it", 'refused; nothing runs'),
}
