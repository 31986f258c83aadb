/**
 * What a test with real parts needs: system packages, root, the binary. A suite whose parts are
 * missing is skipped by name, and test/run.ts says what to install.
 */
import { describe } from 'bun:test'
import { accessSync, appendFileSync, constants, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'

export const ROOT = dirname(import.meta.dir)

type Part = { readonly name: string; readonly program: string }

/** The Debian packages of appliance/packages.txt, in its order. */
function systemPackages(text: string): readonly Part[] {
  return text
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => {
      const [name = '', program = ''] = line.split(/\s+/)
      return { name, program }
    })
}

/** One line of the file named by POSTERN_TEST_SKIPS, as test/run.ts reads it. */
export type Skip = {
  readonly file: string
  readonly title: string
  readonly needs: readonly string[]
  /** Nothing that could be installed: this host cannot do it. */
  readonly host: boolean
}

/** A suite, as `describe` takes it. */
type Suite = (title: string, body: () => void) => void

/**
 * A `describe` for suites that need system packages of appliance/packages.txt, or `root`:
 * `needs('postfix', 'swaks')('mail reaches a real Postfix', () => { … })`.
 * Where one is missing the suite is skipped, with the reason in its title.
 */
export function needs(...names: readonly string[]): Suite {
  const missing = names.filter((name) => !isThere(name))
  if (missing.length === 0) return (title, body) => describe(title, body)
  return skipping(missing, false)
}

/** A `describe` that skips its suite because this host cannot do what it takes: no loop device… */
export function hostLacks(what: string): Suite {
  return skipping([what], true)
}

function skipping(missing: readonly string[], host: boolean): Suite {
  return (title, body) => {
    const skip: Skip = { file: relative(ROOT, Bun.main), title, needs: missing, host }
    const log = process.env['POSTERN_TEST_SKIPS']
    if (log !== undefined) appendFileSync(log, `${JSON.stringify(skip)}\n`)
    describe.skip(`${title} (needs ${missing.join(', ')})`, body)
  }
}

function isThere(name: string): boolean {
  if (name === 'root') return process.getuid?.() === 0
  const packages = systemPackages(readFileSync(join(ROOT, 'appliance/packages.txt'), 'utf8'))
  const part = packages.find((candidate) => candidate.name === name)
  if (part === undefined) throw new Error(`${name} is not in appliance/packages.txt`)
  try {
    accessSync(part.program, constants.F_OK)
    return true
  } catch {
    return false
  }
}

/**
 * The command line of the program under test: the binary that POSTERN_BIN names (test/run.ts
 * sets it to dist/postern), or the sources under this Bun.
 */
export function posternCommand(...args: readonly string[]): string[] {
  const binary = process.env['POSTERN_BIN']
  return binary === undefined || binary === ''
    ? [process.execPath, join(ROOT, 'src/main.ts'), ...args]
    : [binary, ...args]
}
