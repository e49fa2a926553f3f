//! The end-to-end suite: three servers and two workers as processes, driven by real kubectl and Helm, then broken on purpose.
//!
//! The cases run in the order below, on one cluster; those that break it come last. `cargo test --release --test e2e -- WORD`
//! runs the cases whose name holds the word. Without kubectl (no npm, no network) the suite says that it was skipped and
//! passes, unless `SHOAL_E2E=required` is set, as CI does.

mod apply;
mod debug;
mod examples;
mod failures;
mod fields;
mod functions;
mod helm;
mod host_network;
mod images;
mod inputs;
mod kubectl;
mod node;
mod proxy;
mod servers;
mod signatures;
mod sockets;
mod storage;
mod streams;
mod tokens;
mod unruly;
mod workloads;

use std::path::Path;
use std::process::ExitCode;

use shoal_tests::suite::Case;
use shoal_tests::{Cluster, Tools, case, suite};

fn cases() -> Vec<Case<Cluster>> {
    vec![
        case!(kubectl::version_and_discovery_are_understood),
        case!(kubectl::explain_names_fields_and_types),
        case!(kubectl::nodes_are_ready_and_described),
        case!(kubectl::protobuf_bodies_create_objects),
        case!(kubectl::a_second_apply_says_unchanged),
        case!(apply::fields_have_owners_and_conflicts_are_named),
        case!(apply::a_client_s_apply_becomes_the_server_s),
        case!(examples::the_bundled_examples_start),
        case!(examples::functions_answer_on_every_worker),
        case!(examples::a_function_reaches_another_by_its_service),
        case!(examples::a_function_talks_by_tcp),
        case!(examples::modules_of_wasi_0_3_run),
        case!(examples::a_process_prints_what_its_config_map_says),
        case!(examples::a_computation_ends_with_its_answer),
        case!(examples::limits_hold_while_the_neighbours_answer),
        case!(kubectl::top_shows_what_nodes_and_pods_use),
        case!(kubectl::get_prints_every_form),
        case!(kubectl::watching_shows_a_new_pod),
        case!(kubectl::describe_tells_the_story_of_a_pod_and_its_deployment),
        case!(kubectl::label_scale_and_set_image_change_what_they_say),
        case!(kubectl::rollout_undo_brings_the_old_template_back),
        case!(kubectl::logs_follow_a_running_process),
        case!(kubectl::delete_waits_until_all_is_gone),
        case!(kubectl::a_namespace_goes_with_all_that_it_holds),
        case!(workloads::exit_codes_and_restarts_are_reported),
        case!(workloads::a_container_s_own_rules_restart_it),
        case!(workloads::secrets_and_variables_reach_the_process),
        case!(workloads::a_part_of_a_volume_is_mounted_in_its_place),
        case!(workloads::hooks_are_asked_after_the_start_and_before_the_end),
        case!(workloads::a_failing_readiness_probe_takes_a_pod_out_of_its_service),
        case!(unruly::an_answer_without_end_is_held_back_by_who_reads_it),
        case!(unruly::a_body_that_nobody_reads_stays_with_its_sender),
        case!(unruly::a_thousand_requests_at_once_are_all_answered),
        case!(unruly::a_process_that_sleeps_for_ever_is_ended),
        case!(streams::exec_runs_a_command_and_gives_back_its_output_and_exit_code),
        case!(streams::exec_passes_input_in_both_protocols),
        case!(streams::cp_carries_files_both_ways),
        case!(streams::port_forward_reaches_a_function_and_names_a_closed_port),
        case!(streams::attach_shows_what_a_container_prints_and_types_to_it),
        case!(streams::probes_and_hooks_run_commands),
        case!(debug::an_ephemeral_container_sees_what_its_pod_sees),
        case!(proxy::pods_and_services_answer_through_the_api),
        case!(storage::a_claim_waits_for_its_pod_and_its_data_outlives_it),
        case!(storage::a_claim_in_use_is_held_and_its_directory_goes_with_it),
        case!(storage::what_is_to_be_retained_stays),
        case!(storage::a_pod_without_its_volume_says_why_it_waits),
        case!(storage::a_pod_s_own_claim_comes_and_goes_with_it),
        case!(storage::a_directory_of_the_node_needs_the_worker_s_leave),
        case!(sockets::processes_talk_by_name_from_worker_to_worker),
        case!(sockets::node_ports_carry_any_protocol),
        case!(sockets::a_process_that_serves_is_drained),
        case!(sockets::processes_of_wasi_0_3_have_the_same_sockets),
        case!(functions::instances_of_wasi_0_3_are_reused_where_the_pod_says_so),
        case!(functions::what_cannot_be_reused_so_is_named),
        case!(sockets::host_ports_lead_to_their_pods_and_are_had_once),
        case!(host_network::a_pod_shares_its_node_s_address_where_the_worker_allows_it),
        case!(tokens::a_pod_gets_tokens_of_its_account_that_end_with_it),
        case!(fields::a_container_leaves_a_message_at_its_end),
        case!(fields::a_pod_waits_for_its_gates),
        case!(fields::the_containers_of_a_pod_share_what_it_has_as_a_whole),
        case!(fields::a_volume_in_memory_is_not_on_the_disk_and_has_its_size),
        case!(fields::a_pod_knows_its_host_by_the_name_that_it_asks_for),
        case!(fields::a_pod_that_asks_for_it_has_its_token_where_libraries_look),
        case!(inputs::bad_manifests_get_the_error_that_kubectl_users_know),
        case!(inputs::bad_images_are_named_in_status_and_events),
        case!(inputs::strangers_are_refused),
        case!(images::images_are_listed_inspected_and_removed),
        case!(images::tokens_of_service_accounts_open_the_registry),
        case!(images::a_private_image_is_pulled_with_the_secret_of_the_account),
        case!(signatures::images_need_the_signature_that_their_namespace_wants),
        case!(signatures::what_starts_again_is_verified_again),
        case!(helm::a_chart_installs_upgrades_rolls_back_and_goes),
        case!(node::a_pod_that_uses_more_disk_than_it_may_is_evicted),
        case!(node::a_static_pod_is_mirrored_and_outlives_its_mirror),
        case!(node::a_node_that_runs_out_says_so_and_is_avoided),
        case!(node::a_node_that_is_short_for_long_ends_pods_in_their_time),
        case!(node::a_node_s_metrics_hold_the_kubelet_s_series_and_our_own),
        case!(servers::members_are_listed_and_leadership_moves),
        case!(servers::the_encryption_key_is_changed_on_every_server),
        case!(servers::a_backup_is_checked_and_restored_into_a_cluster_of_its_own),
        case!(failures::a_killed_leader_loses_no_acknowledged_write),
        case!(failures::any_server_answers_and_a_restarted_one_catches_up),
        case!(failures::a_killed_worker_s_pods_move),
        case!(failures::pods_stay_when_no_worker_is_to_be_heard),
        case!(failures::functions_answer_with_every_server_dead),
        case!(failures::a_second_up_finds_everything_as_it_was),
    ]
}

#[expect(clippy::print_stdout, reason = "a test runner talks to the person who runs it")]
fn main() -> ExitCode {
    let filters: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if std::env::args().any(|argument| argument == "--list") {
        for case in cases() {
            println!("{}: test", case.name);
        }
        return ExitCode::SUCCESS;
    }
    let tools = match Tools::install() {
        Ok(tools) => tools,
        Err(error) if std::env::var_os("SHOAL_E2E").is_none() => {
            println!("skipped: the end-to-end suite needs kubectl and Helm: {error:#}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("the end-to-end suite is required and has no kubectl: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let mut cluster = match Cluster::start(Path::new(env!("CARGO_BIN_EXE_shoal")), &tools, 3, 2) {
        Ok(cluster) => cluster,
        Err(error) => {
            eprintln!("{error:?}");
            return ExitCode::FAILURE;
        }
    };
    let failed = suite::run(&mut cluster, &cases(), &filters, |cluster| eprintln!("{}", cluster.logs(30)));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
