/** The path of mail through a node, put together: what looks into it, the pipeline, and port 25. */
import { join as joinPath } from 'node:path'
import { secretName } from '../admin/signing.ts'
import type { Clock } from '../base/clock.ts'
import type { Resolver } from '../base/dns.ts'
import { readIfThere } from '../base/files.ts'
import { MessageIds } from '../base/ids.ts'
import type { Observer } from '../base/observe.ts'
import type { Random } from '../base/random.ts'
import type { NodeOptions } from '../cli/world.ts'
import type { Cluster } from '../cluster/cluster.ts'
import type { Certificate } from '../config/certificate.ts'
import type { LiveConfig } from '../config/live.ts'
import type { NodeFile } from '../config/local.ts'
import type { Settings } from '../config/schema.ts'
import { Bans } from '../mail/accept/bans.ts'
import { Directory } from '../mail/accept/directory.ts'
import { SmtpListener } from '../mail/accept/listener.ts'
import { mailboxes } from '../mail/accept/mailboxes.ts'
import { RecipientQuestions } from '../mail/deliver/ask.ts'
import { createDeliverer } from '../mail/deliver/attempt.ts'
import { inspectConfigs } from '../mail/inspect/config.ts'
import type { Inspectors } from '../mail/inspect/contract.ts'
import type { Engines } from '../mail/inspect/engines/engines.ts'
import { Expander } from '../mail/inspect/expand.ts'
import { HistoryNames } from '../mail/inspect/history.ts'
import { withPoison } from '../mail/inspect/poison.ts'
import { createInspectors } from '../mail/inspect/pool.ts'
import { domainOf } from '../mail/inspect/urls.ts'
import { withEngines } from '../mail/inspect/whole.ts'
import { Pipeline } from '../mail/pipeline.ts'
import { Signatures } from '../mail/signatures.ts'
import { nodeName } from '../store/names.ts'
import type { Trace } from '../store/trace.ts'
import { peersOf } from './cluster.ts'
import type { Duties } from './duties.ts'
import type { Names } from './names.ts'
import { learnedDir, type Rows, type Stores } from './stores.ts'

/** Inspector processes. What costs is inspection, and this is what has the cores. */
const INSPECTORS = Math.max(1, Math.min(8, navigator.hardwareConcurrency))

/** Processes that look into mail, and the scanners beside them. */
export function openInspectors(
  { command, dataDir }: NodeOptions,
  given: {
    readonly engines: Engines
    readonly names: Names
    readonly live: LiveConfig
    readonly trace: Trace
    /** What the other nodes know of mail is here. */
    readonly isWhole: () => boolean
  },
  { clock, observer }: { readonly clock: Clock; readonly observer: Observer },
): Inspectors {
  const { engines, names, live, trace, isWhole } = given
  const settings = (): Settings => live.current.settings
  const known = new HistoryNames({ names: names.lists, trace, settings, isWhole })
  const expandsLinks = (): boolean => live.current.settings['content.expandLinks'] === 'on'
  const pool = createInspectors(
    {
      command: [...command, 'inspector'],
      processes: INSPECTORS,
      spoolDir: joinPath(dataDir, 'spool'),
      readable: [learnedDir(dataDir)],
    },
    { clock, observer, names: new Expander({ clock, names: known, isOn: expandsLinks }) },
  )
  return withEngines(withPoison(pool, { clock, observer }), engines)
}

export type Mail = ReturnType<typeof openMail>

/** Nothing listens and nothing is delivered until its parts are started. */
export function openMail(
  options: NodeOptions,
  given: {
    /** As it greets, and as other hosts see it. */
    readonly hostname: string
    readonly file: NodeFile
    readonly certificate: Certificate
    readonly live: LiveConfig
    readonly rows: Rows
    readonly store: Stores
    readonly names: Names
    readonly inspectors: Inspectors
    readonly cluster: Cluster
    readonly duties: Pick<Duties, 'tally' | 'patience' | 'custody' | 'holders' | 'secrets'>
  },
  seam: {
    readonly clock: Clock
    readonly random: Random
    readonly resolver: Resolver
    readonly observer: Observer
  },
) {
  const { hostname, file, certificate, live, store, names, inspectors, cluster } = given
  const { tally, patience, custody, holders, secrets } = given.duties
  const { clock, observer } = seam
  const { timeoutMs } = names
  const deliverer = createDeliverer(seam)
  const pipeline = new Pipeline({
    hostname,
    ...seam,
    live,
    ...store,
    inspectors,
    signatures: new Signatures((domain, selector) => secrets.get(secretName(domain, selector))),
    inspectConfig: inspectConfigs(hostname, () => store.learned.path),
    deliverer,
    nodeName: (node) => nodeName(store.nodes, node),
    tally,
    tenure: custody.tenure,
    share: holders.share,
    deletedMs: patience.deletedMs,
  })
  const bans = new Bans({ clock, observer, tally, rows: given.rows.replica })
  const questions = new RecipientQuestions({ ...seam, hostname, timeoutMs })
  const directory = new Directory({
    clock,
    observer,
    timeoutMs,
    file: (name) => readIfThere(joinPath(options.dataDir, name)),
  })
  const listener = new SmtpListener(
    { ...options.smtp, hostname, tls: certificate },
    {
      clock,
      observer,
      ids: new MessageIds(file.nodeId, file.epoch, clock),
      live,
      receiver: pipeline.receiver,
      tally,
      greylist: store.greylist,
      names: names.lists,
      bans,
      exists: mailboxes({ directory, ask: (address, hops) => questions.exists(address, hops) }),
      isPeer: peersOf(cluster),
      domainOf,
      witness: (question) => custody.succession.witness.answer(question),
    },
  )
  return { deliverer, pipeline, bans, questions, directory, listener }
}
