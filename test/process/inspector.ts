/** What `postern inspector` is, without the rest of the binary: the child of the inspection tests. */
import { runInspector } from '../../src/mail/inspect/worker.ts'

process.exitCode = await runInspector()
