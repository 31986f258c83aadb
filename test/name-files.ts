/** A file in a directory of its own, for as long as a test runs. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export function withDir(run: (write: (text: string) => void, path: string) => void): void {
  const directory = mkdtempSync(join(tmpdir(), 'postern-names-'))
  const path = join(directory, 'file')
  try {
    run((text) => writeFileSync(path, text), path)
  } finally {
    rmSync(directory, { recursive: true })
  }
}
