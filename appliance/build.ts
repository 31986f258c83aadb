/**
 * From a clone to dist/postern: installs the packages, and builds the one binary when its
 * sources differ from those of the last build. Imports no package: there may be none yet.
 */
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

const ROOT = dirname(import.meta.dir)
const DIST = join(ROOT, 'dist')

/** Where the binary of this repository stands. */
export const BINARY = join(DIST, 'postern')

/** Everything that may change a byte of the binary, beside Bun itself. */
const INPUTS = [
  '{src,web}/**/*',
  'appliance/{build.ts,install.sh}',
  '{package,tsconfig}.json',
  'bun.lock',
].map((pattern) => new Bun.Glob(pattern))

/** Identifiers stay whole: Elysia reads the source text of its handlers. */
const FLAGS = [
  '--compile',
  // What is imported when needed is a file of its own in the binary: a child that inspects never
  // reads the web, and nobody reads the certificate writer (9 MB less in each process).
  '--splitting',
  '--format=esm',
  '--minify-whitespace',
  '--minify-syntax',
  '--sourcemap',
  '--no-compile-autoload-dotenv',
  '--no-compile-autoload-bunfig',
]

/** Installs exactly what bun.lock says; its output when that failed, null when it went well. */
export function installPackages(): string | null {
  const run = Bun.spawnSync([process.execPath, 'install', '--frozen-lockfile'], {
    cwd: ROOT,
    stdin: 'ignore',
    stdout: 'pipe',
    stderr: 'pipe',
  })
  return run.exitCode === 0 ? null : `${run.stdout}${run.stderr}`
}

export type Built = { readonly ok: boolean; readonly fresh: boolean; readonly output: string }

/**
 * Makes dist/postern when it is missing or older in content. A failed build leaves no binary
 * that could be taken for a new one.
 */
export function build(): Built {
  const version = versionText()
  const stamp = fingerprint(version)
  const stampFile = `${BINARY}.inputs`
  if (textOf(stampFile) === stamp && Bun.file(BINARY).size > 0) {
    return { ok: true, fresh: false, output: '' }
  }

  // The base name is embedded in the binary: the same name in a directory of this build only.
  const work = join(DIST, `build-${process.pid}`)
  mkdirSync(work, { recursive: true })
  rmSync(stampFile, { force: true })
  try {
    const outfile = join(work, 'postern')
    const define = `POSTERN_VERSION=${JSON.stringify(version)}`
    const made = Bun.spawnSync(
      [
        process.execPath,
        'build',
        ...FLAGS,
        '--define',
        define,
        'src/main.ts',
        '--outfile',
        outfile,
      ],
      { cwd: ROOT, stdin: 'ignore', stdout: 'pipe', stderr: 'pipe' },
    )
    const output = `${made.stdout}${made.stderr}`
    if (made.exitCode !== 0) {
      rmSync(BINARY, { force: true })
      return { ok: false, fresh: false, output }
    }
    renameSync(outfile, BINARY)
    writeFileSync(stampFile, stamp)
    return { ok: true, fresh: true, output }
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}

/** Version of package.json, and the commit where git knows one: a plain tarball builds too. */
function versionText(): string {
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
    version: string
  }
  const commit = git('rev-parse', '--short=7', 'HEAD')
  if (commit === null) return version
  const changed = git('status', '--porcelain', '--', 'src', 'web', 'package.json', 'bun.lock')
  return `${version}+${commit}${changed === '' ? '' : '.changed'}`
}

/** Output of a git command on this repository itself, not on one around it; null without. */
function git(...args: string[]): string | null {
  if (Bun.which('git') === null || !existsSync(join(ROOT, '.git'))) return null
  const run = Bun.spawnSync(['git', '-C', ROOT, ...args], { stdin: 'ignore', stderr: 'ignore' })
  return run.exitCode === 0 ? run.stdout.toString().trim() : null
}

function fingerprint(version: string): string {
  const hash = new Bun.CryptoHasher('sha256')
  hash.update(`${Bun.version} ${version} ${FLAGS.join(' ')}\n`)
  const paths = INPUTS.flatMap((glob) => [...glob.scanSync({ cwd: ROOT })]).sort()
  for (const path of paths) {
    const bytes = readFileSync(join(ROOT, path))
    hash.update(`${path} ${bytes.length}\n`)
    hash.update(bytes)
  }
  return hash.digest('hex')
}

function textOf(path: string): string | null {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return null
  }
}

if (import.meta.main) {
  const { ok, fresh, output } = build()
  process.stdout.write(ok ? `${fresh ? 'built' : 'up to date:'} ${BINARY}\n` : output)
  process.exitCode = ok ? 0 : 1
}
