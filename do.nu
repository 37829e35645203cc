#!/usr/bin/env nu
# The Makefile's targets for Nushell: `nu do.nu test`, `nu do.nu run --port 9052`.

const here = path self .

# Do what the Makefile's target of this name does; what follows is passed on as ARGS.
def --wrapped main [
    target: string = "help" # run, test, lint, types, unit, e2e, drift, bench, ...
    ...rest: string # options of what the target runs
] {
    cd $here
    let passed_on = $rest | each { |word| $"'($word | str replace --all "'" "'\\''" | str replace --all '$' '$$')'" } | str join " "
    make $target ...(if ($rest | is-empty) { [] } else { [$"ARGS=($passed_on)"] })
}
